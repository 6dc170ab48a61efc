package durable

// point is a moment of a durable write at which a crash must lose nothing.
type point string

const (
	beforeWrite  point = "before-write"
	beforeRename point = "before-rename"
	afterRename  point = "after-rename"
)
