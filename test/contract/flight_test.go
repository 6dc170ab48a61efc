package contract

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/trustcast/trustcast/server"
)

// shortHold is how long requests wait in a test that waits for their refusal.
const shortHold = time.Second

// bigBlob is more than all buffers between a client and a replica hold together.
const bigBlob = 48 << 20

// flight is an upload and a download that have begun and not ended.
type flight struct {
	s         *site
	content   []byte // of the upload
	digest    string
	at        string // where the upload went when it began
	uploading <-chan answer
	body      *io.PipeWriter
	blob      string // what is downloaded
	download  *http.Response
	got       bytes.Buffer
}

// upload uploads a blob.
func (s *site) upload(repo string, content []byte, digest string) {
	s.t.Helper()
	s.want(http.StatusCreated, http.MethodPut, finish(s.begin(repo), digest), bytes.NewReader(content), "Content-Type", "application/octet-stream")
}

// takeOff begins both: the first half of an upload, the first byte of a download.
func (s *site) takeOff(blobDigest string) *flight {
	s.t.Helper()
	f := &flight{s: s, blob: blobDigest}
	f.content, f.digest = blob(1 << 20)
	f.at = s.begin("app")
	body, half := io.Pipe()
	f.body = half
	s.t.Cleanup(func() { _ = half.Close() })
	f.uploading = s.later(http.MethodPatch, f.at, body, "Content-Type", "application/octet-stream")
	_, err := half.Write(f.content[:len(f.content)/2])
	must(s.t, err)
	f.download = s.download(blobDigest)
	_, err = io.CopyN(&f.got, f.download.Body, 1)
	must(s.t, err)
	s.until("an upload and a download are in flight", f.flies)
	return f
}

// download begins one.
func (s *site) download(digest string) *http.Response {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "https://"+s.domain+"/v2/app/blobs/"+digest, nil)
	must(s.t, err)
	req.SetBasicAuth(user, password)
	resp, err := s.client.Do(req)
	must(s.t, err)
	s.t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// flies is nil while a replica is at the upload, and at the download, too, when
// replicas answer reads; else nobody but its client knows of it.
func (f *flight) flies() error {
	n, want := 0, 1
	if f.s.throughReplicas() {
		want = 2
	}
	for _, replica := range f.s.registry().GetReplicas() {
		n += int(replica.GetInFlight())
	}
	if n != want {
		return fmt.Errorf("replicas are at %d requests, want %d", n, want)
	}
	return nil
}

// land sends and takes the rest; both must be whole. It returns where the upload
// goes on.
func (f *flight) land() (at string) {
	f.s.t.Helper()
	must(f.s.t, f.flies())
	_, err := io.Copy(f.body, bytes.NewReader(f.content[len(f.content)/2:]))
	must(f.s.t, err)
	must(f.s.t, f.body.Close())
	at = f.s.onward(f.s.answered(f.uploading, http.StatusAccepted))
	_, err = io.Copy(&f.got, f.download.Body)
	must(f.s.t, err)
	sum := sha256.Sum256(f.got.Bytes())
	if got := "sha256:" + hex.EncodeToString(sum[:]); got != f.blob {
		f.s.t.Errorf("%d bytes came, which are %s and not %s", f.got.Len(), got, f.blob)
	}
	return at
}

// uploaded ends an upload, whose content must be there then.
func (f *flight) uploaded(at string) {
	f.s.t.Helper()
	f.s.want(http.StatusCreated, http.MethodPut, finish(at, f.digest), nil)
	if _, got := f.s.do(http.MethodGet, "/v2/app/blobs/"+f.digest, nil); got != string(f.content) {
		f.s.t.Error("the blob is not what was uploaded")
	}
}

// Neither a pause nor a stop cuts what is in flight, and nothing new passes
// meanwhile: a pause lets it wait, up to a limit, and a stop refuses it.
func TestInFlight(t *testing.T) {
	each(t, inFlight, func(_ *server.InitConfig, cfg *server.Config) { cfg.HoldLimit = shortHold })
}

func inFlight(t *testing.T, s *site) {
	content, digest := blob(bigBlob)
	s.upload("app", content, digest)

	f := s.takeOff(digest)
	s.must("pause", "")
	began := time.Now()
	for _, waiting := range []<-chan answer{s.later(http.MethodGet, "/v2/", nil), s.later(http.MethodPost, "/v2/app/blobs/uploads/", nil)} {
		resp := s.answered(waiting, http.StatusServiceUnavailable)
		if took := time.Since(began); resp.Header.Get("Retry-After") == "" || took < shortHold {
			t.Errorf("refused after %v, retry after %q", took, resp.Header.Get("Retry-After"))
		}
	}
	at := f.land()
	s.want(http.StatusServiceUnavailable, http.MethodPut, finish(at, f.digest), nil) // the pause goes on
	s.must("unpause", "")
	f.uploaded(at)

	f = s.takeOff(digest)
	stopping := s.stopping()
	s.until("replicas drain", func() error {
		for _, replica := range s.registry().GetReplicas() {
			if replica.GetState() != "draining" {
				return errText(replica.GetState())
			}
		}
		return nil
	})
	s.want(http.StatusServiceUnavailable, http.MethodGet, "/v2/", nil)
	select {
	case err := <-stopping:
		t.Fatalf("the stop ended with requests in flight: %v", err)
	default:
	}
	at = f.land()
	must(t, <-stopping)
	s.stopped()
	s.must("start", "")
	f.uploaded(at)
}

// stopping begins a stop, and returns when requests are refused.
func (s *site) stopping() <-chan error {
	s.t.Helper()
	ended := make(chan error, 1)
	go func() {
		_, err := s.change("stop", "")
		ended <- err
	}()
	s.until("requests are refused", func() error {
		resp, text, err := s.try(http.MethodGet, "/v2/", nil)
		if err == nil && (resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, "stopped")) {
			err = errText(resp.Status + " " + text)
		}
		return err
	})
	return ended
}

// A stop waits for a download, too, that no replica is at.
func TestStopWaitsForDownloads(t *testing.T) {
	each(t, stopWaitsForDownload, readsFromFiles)
}

func stopWaitsForDownload(t *testing.T, s *site) {
	content, digest := blob(bigBlob)
	s.upload("app", content, digest)
	resp := s.download(digest)
	ended := s.stopping()
	s.until("no replica runs", func() error {
		if left := s.registry().GetReplicas(); len(left) > 0 {
			return fmt.Errorf("%v run", left)
		}
		return nil
	})
	s.want(http.StatusServiceUnavailable, http.MethodGet, "/v2/", nil)
	select {
	case err := <-ended:
		t.Fatalf("the stop ended with a download in flight: %v", err)
	default:
	}
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes came (%v)", len(got), err)
	}
	must(t, <-ended)
}

// stopped wants a registry without a replica.
func (s *site) stopped() {
	s.t.Helper()
	if r := s.registry(); r.GetState() != "stopped" || len(r.GetReplicas()) > 0 {
		s.t.Errorf("stopped: %v", r)
	}
	if s.engine == "docker" {
		if left := s.containers(); len(left) > 0 {
			s.t.Errorf("containers %v are left", left)
		}
	}
}
