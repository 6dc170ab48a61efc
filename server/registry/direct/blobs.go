package direct

import (
	"net/http"
	"strconv"
	"time"
)

// blob answers with a blob, whole or in ranges.
func (d *Reads) blob(w http.ResponseWriter, r *http.Request, repository, reference string) bool {
	asked, ok := parseDigest(reference)
	if !ok || !d.files.hasBlob(repository, asked) {
		return false
	}
	content, size, err := d.files.open(asked)
	if err != nil {
		return false
	}
	defer func() { _ = content.Close() }() // nothing was written
	header := d.begin(w)
	header["Etag"] = []string{`"` + asked.String() + `"`}
	header["Cache-Control"] = []string{"max-age=31536000"}
	header["Docker-Content-Digest"] = []string{asked.String()}
	header["Content-Type"] = []string{"application/octet-stream"}
	header["Content-Length"] = []string{strconv.FormatInt(size, 10)}
	http.ServeContent(w, r, "", time.Time{}, content)
	return true
}
