package edge

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trustcast/trustcast/internal/peer"
)

const (
	// copySize is how much of a response moves at once (bytes): with the 32 KiB
	// that are usual, large blobs lose a third of their rate (FACTS).
	copySize = 256 << 10
	// smallAnswer is up to which length (bytes) an answer is read whole before the
	// client gets its first byte, so that it can come from another endpoint when
	// this one ends in the middle: a manifest, of which most clients resume nothing.
	smallAnswer = 64 << 10
	// idleConnections is how many are kept open to an endpoint; a client has about
	// six. They are closed before any server of ours would.
	idleConnections = 64
	idleConnTimeout = 30 * time.Second
	// maxConnections is how many an attempt may use: net/http tries all kept ones
	// when they end, since it takes them for stale.
	maxConnections = 2
)

var (
	errHangs = errors.New("it hangs: it takes connections and answers nothing")
	errEnds  = errors.New("it ends connections without an answer")
)

// proxy hands requests to an endpoint behind a Unix socket.
type proxy struct {
	transport *http.Transport
	reverse   *httputil.ReverseProxy
}

func newProxy(socket string, uid int, log *slog.Logger) *proxy {
	var dialer net.Dialer
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if uid == 0 {
				return dialer.DialContext(ctx, "unix", socket)
			}
			return peer.Dial(ctx, socket, uid)
		},
		DisableCompression:     true, // else a client that accepts none would get blobs unpacked
		MaxIdleConnsPerHost:    idleConnections,
		IdleConnTimeout:        idleConnTimeout,
		MaxResponseHeaderBytes: maxAnswerHeader,
	}
	return &proxy{transport, &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      transport,
		BufferPool:     &buffers,
		ModifyResponse: begun,
		ErrorHandler:   func(_ http.ResponseWriter, r *http.Request, err error) { attemptOf(r).err = err },
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
}

// rewrite gives the outgoing request its place. What forward said of the client
// is restored: the proxy takes such headers for the client's, and a client can
// have any header dropped by naming it in Connection.
func rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host = "http", "registry"
	r.Out.URL.RawQuery = r.In.URL.RawQuery // the embedded engine gets it as it came, too
	for _, name := range forwarded {
		if values, ok := r.In.Header[name]; ok {
			r.Out.Header[name] = values
		}
	}
}

// attempt is one request at one endpoint.
type attempt struct {
	at   Endpoint
	err  error     // why the endpoint did not answer
	cut  error     // why its answer broke off
	body *unspoilt // nil: the request has none
	// bound ends when the endpoint is bound to answer: until then it may be given
	// up because it hangs. It says whether it was not.
	bound func() bool
	// informational are the 1xx that came before the answer.
	informational atomic.Int32
}

type attemptKey struct{}

func attemptOf(r *http.Request) *attempt {
	a, _ := r.Context().Value(attemptKey{}).(*attempt)
	return a
}

// serve lets the endpoint answer. It panics with http.ErrAbortHandler when the
// answer breaks off; then a.cut says whether the endpoint did that. What only
// reads is given up when hung ends before an answer is there.
func (p *proxy) serve(hung context.Context, out http.ResponseWriter, r *http.Request, a *attempt) {
	ctx, cancel := context.WithCancelCause(context.WithValue(r.Context(), attemptKey{}, a))
	defer cancel(nil)
	if !isWrite(r) {
		a.bound = context.AfterFunc(hung, func() { cancel(errHangs) })
		defer a.bound()
	}
	connections := 0
	r = r.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			if connections++; connections > maxConnections {
				cancel(errEnds)
			}
		},
		Got1xxResponse: func(int, textproto.MIMEHeader) error { return a.informed() },
	}))
	if r.Body != nil && r.Body != http.NoBody {
		a.body = &unspoilt{from: r.Body}
		r.Body = a.body
	}
	p.reverse.ServeHTTP(out, r)
}

// unreached says whether the endpoint got nothing: there was no connection.
func (a *attempt) unreached() bool {
	failed, ok := errors.AsType[*net.OpError](a.err)
	return ok && failed.Op == "dial"
}

// begun sees an endpoint's answer before the client does. An error means that the
// endpoint did not answer, or that its answer is unfit.
func begun(answer *http.Response) error {
	a := attemptOf(answer.Request)
	bound := func() error {
		if a.bound != nil && !a.bound() {
			return errHangs
		}
		return nil
	}
	if answer.StatusCode == http.StatusSwitchingProtocols {
		return errors.New("it wants to speak another protocol")
	}
	if err := fit(answer, a.at); err != nil {
		return err
	}
	if n := answer.ContentLength; n > 0 && n <= smallAnswer && answer.Request.Method != http.MethodHead {
		whole := make([]byte, n)
		if _, err := io.ReadFull(answer.Body, whole); err != nil {
			return err
		}
		_ = answer.Body.Close() // its end was reached
		answer.Body = &inMemory{whole}
		return bound()
	}
	answer.Body = &watched{answer.Body, answer, a}
	return bound()
}

// inMemory is a body that came whole.
type inMemory struct{ rest []byte }

// Read returns the next part.
func (m *inMemory) Read(p []byte) (int, error) {
	if len(m.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}

// Close does nothing.
func (m *inMemory) Close() error { return nil }

// watched is a body whose end in the middle is the endpoint's failure.
type watched struct {
	io.ReadCloser
	answer  *http.Response
	attempt *attempt
}

// Read notes the error.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.attempt.cut = err
	}
	return n, err
}

// Close drops what came behind the body.
func (w *watched) Close() error {
	err := w.ReadCloser.Close()
	w.answer.Trailer = nil
	return err
}

// unspoilt is a request's body that one attempt reads, and knows whether it did:
// what was read is gone, so that only an untouched one can go to another endpoint.
type unspoilt struct {
	from io.Reader

	mu      sync.Mutex
	touched bool
	closed  bool  // this attempt is over
	err     error // the client's or the edge's, not the endpoint's
}

var errOver = errors.New("this attempt is over")

// Read takes the next part from the client.
func (u *unspoilt) Read(p []byte) (int, error) {
	u.mu.Lock()
	if u.closed {
		u.mu.Unlock()
		return 0, errOver
	}
	u.touched = true
	u.mu.Unlock()
	n, err := u.from.Read(p) // may block for the client; others must not wait for that
	if err != nil && !errors.Is(err, io.EOF) {
		u.mu.Lock()
		u.err = err
		u.mu.Unlock()
	}
	return n, err
}

// Close leaves the client's body open, for another attempt and for its server.
func (u *unspoilt) Close() error { return nil }

// end lets no more be read, and says whether anything was, and what went wrong
// with reading.
func (u *unspoilt) end() (touched bool, err error) {
	if u == nil {
		return false, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	return u.touched, u.err
}

// buffers are for copying answers.
var buffers bufferPool

type bufferPool struct{ sync.Pool }

// Get returns a buffer.
func (b *bufferPool) Get() []byte {
	if p, ok := b.Pool.Get().(*[copySize]byte); ok {
		return p[:]
	}
	return new([copySize]byte)[:]
}

// Put takes one back.
func (b *bufferPool) Put(p []byte) { b.Pool.Put((*[copySize]byte)(p)) }
