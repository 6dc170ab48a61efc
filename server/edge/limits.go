package edge

import (
	"io"
	"net/http"
	"time"
)

const (
	// readHeaderTimeout is for a handshake, and for a request's header once its
	// first byte is there; the slowest line needs seconds.
	readHeaderTimeout = 10 * time.Second
	// idleTimeout is longer than the 90 s after which Go's clients, Docker and
	// containerd among them, drop an idle connection: so they close first, and
	// no request meets a connection that is being closed.
	idleTimeout = 2 * time.Minute
	// stallTimeout is how long a client may neither take nor send a byte of a
	// body. Engines pause a download while they unpack or their disk is busy,
	// but not for minutes.
	stallTimeout = 5 * time.Minute
	// stallStep is how far a stall limit ages before it is moved on, so that
	// moving it costs nothing beside the transfer.
	stallStep = stallTimeout / 10

	// maxHeader bounds a request's header (bytes); Docker sends below 1 KiB,
	// and manifest lists of accepted types make a few more.
	maxHeader = 32 << 10
	// maxAuthorization bounds Authorization (bytes): name and password in
	// base64 have 450 at most.
	maxAuthorization = 1 << 10
)

// response counts and keeps a response alive while its client takes bytes: the
// write limit moves on with each write, so that only standing still ends it.
type response struct {
	http.ResponseWriter
	control *http.ResponseController
	limit   limit
	// gathering is the connection's; nil: it has none.
	gathering *gathering
	status    int // 0 until the header is written
	// body is the request's when it can be cut for want of space: then that is the
	// answer, and not what the endpoint makes of its half.
	body    *bounded
	instead bool // it was given, and the endpoint's is dropped
}

func newResponse(w http.ResponseWriter, r *http.Request) *response {
	control := http.NewResponseController(w)
	return &response{ResponseWriter: w, control: control, limit: limit{set: control.SetWriteDeadline}, gathering: gatheringOf(r)}
}

// WriteHeader keeps the status for the metrics.
func (w *response) WriteHeader(status int) {
	if w.instead || status < http.StatusOK { // 1xx are no answers yet, and net/http sends Continue by itself
		return
	}
	if w.status == 0 && w.body != nil {
		if why := w.body.cut.Load(); why != nil {
			w.instead, w.status = true, why.status
			w.limit.moveOn()
			why.send(w.ResponseWriter)
			return
		}
	}
	if w.status == 0 {
		w.status = status
	}
	w.limit.moveOn()
	w.ResponseWriter.WriteHeader(status)
}

// Write gives the client its time for p.
func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.instead {
		return len(p), nil
	}
	w.limit.moveOn()
	if w.gathering != nil && len(p) >= worthGathering {
		return w.gathering.writeTo(w.ResponseWriter, p)
	}
	return w.ResponseWriter.Write(p)
}

// ReadFrom copies in large steps what is answered from files.
func (w *response) ReadFrom(from io.Reader) (n int64, err error) {
	buffer := buffers.Get()
	defer buffers.Put(buffer)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{from}, buffer)
}

// Flush lets engines stream.
func (w *response) Flush() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.limit.moveOn()
	_ = w.control.Flush() // the next write says what is wrong
}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// code is the status that the client gets.
func (w *response) code() int {
	if w.status == 0 {
		return http.StatusOK // what net/http sends for a handler that wrote nothing
	}
	return w.status
}

// body is a request's body with a limit that moves on with each read.
type body struct {
	io.ReadCloser
	limit limit
}

// newBody also limits what net/http reads of a body that nobody wanted.
func newBody(r io.ReadCloser, control *http.ResponseController) *body {
	b := &body{ReadCloser: r, limit: limit{set: control.SetReadDeadline}}
	b.limit.moveOn()
	return b
}

// Read gives the client its time to send.
func (b *body) Read(p []byte) (int, error) {
	b.limit.moveOn()
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		// After its end the connection is only watched for the client's going
		// away, which a limit would feign.
		b.limit.lift()
	}
	return n, err
}

// limit is a deadline of a connection that moves on.
type limit struct {
	set  func(time.Time) error
	last time.Time // when it was moved last
}

func (l *limit) moveOn() {
	now := time.Now()
	if now.Sub(l.last) < stallStep {
		return
	}
	l.last = now
	_ = l.set(now.Add(stallTimeout)) // a writer without deadlines has no connection to hold
}

func (l *limit) lift() {
	l.last = time.Time{}
	_ = l.set(time.Time{}) // as above
}
