package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server/records"
	"github.com/trustcast/trustcast/server/registry"
)

// part is one thing that has to be well; ask says why it is not, in words.
type part struct {
	name string
	ask  func(context.Context) error
}

// atOnce is an ask that waits for nobody.
func atOnce(ask func() error) func(context.Context) error {
	return func(context.Context) error { return ask() }
}

// liveParts: without it the process has to be started again, which helps against nothing
// that the others say.
func (n *node) liveParts() []part {
	return []part{{"loops", n.alive}}
}

// readyParts: without one of them pulls fail.
func (n *node) readyParts() []part {
	return append(n.liveParts(),
		part{"records", atOnce(n.recordsRead)},
		part{"certificates", atOnce(n.certificatesServed)},
		part{"engine", atOnce(n.engineAnswers)},
		part{"shutdown", atOnce(n.goesOn)},
	)
}

// recordsRead: the data directory is there, and can be read.
func (n *node) recordsRead() error {
	var s site
	return records.Read(n.layout.records(), siteRecord, &s)
}

// certificatesServed: the edge serves what the record says.
func (n *node) certificatesServed() error {
	if n.authority.Settled() {
		return nil
	}
	state, err := n.authority.State()
	switch {
	case err != nil:
		return err
	case state.Stuck != "":
		return errors.New(state.Stuck)
	case state.Frozen != "":
		return errors.New(state.Frozen)
	}
	return errors.New("the edge does not serve the current certificate yet")
}

// engineAnswers: the operator wants the registry to serve, and a replica does.
func (n *node) engineAnswers() error {
	v := n.registry.View()
	if v.State != registry.Running {
		return fmt.Errorf("the registry is %s", v.State)
	}
	why := errors.New("no replica answers yet")
	for _, e := range n.edge.Load() {
		if e.Problem == "" && !e.Draining {
			return nil
		}
		if e.Problem != "" {
			why = errors.New(e.Problem)
		}
	}
	if v.Problem != "" {
		why = errors.New(v.Problem)
	}
	return why
}

// goesOn: it is not stopping.
func (n *node) goesOn() error {
	select {
	case <-n.stopping:
		return errors.New("the server is stopping")
	default:
		return nil
	}
}

// healthHandler answers /livez (the process lives), /readyz (pulls work) and /metrics,
// and profiles if they are asked for.
func (n *node) healthHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", answerHealth("livez", n.liveParts()))
	mux.HandleFunc("GET /readyz", answerHealth("readyz", n.readyParts()))
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.metrics, promhttp.HandlerOpts{}))
	if n.cfg.Pprof {
		addProfiles(mux)
	}
	return mux
}

// Any user of this machine can connect to the loopback port: without bounds one could
// take all of the server's file descriptors, and so its registry.
const (
	httpConns       = 64
	httpHeaderLimit = 5 * time.Second
	httpLimit       = 30 * time.Second // of a request, an answer, and a pause between two
)

// healthServer answers with bounds on what one connection may take. Profiles take longer,
// and set the end of theirs themselves.
func (n *node) healthServer() *http.Server {
	srv := &http.Server{
		Handler: n.healthHandler(), MaxHeaderBytes: 16 << 10,
		ReadHeaderTimeout: httpHeaderLimit, ReadTimeout: httpLimit, WriteTimeout: httpLimit, IdleTimeout: httpLimit,
	}
	if n.cfg.Pprof {
		srv.ReadTimeout, srv.WriteTimeout = 2*maxProfile, 2*maxProfile
	}
	return srv
}

// answerHealth asks all parts but those that ?exclude= names. ?verbose, or a part that is
// not well, gives a line for each.
func answerHealth(what string, parts []part) http.HandlerFunc {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		excluded := r.URL.Query()["exclude"]
		for _, name := range excluded {
			if !slices.Contains(names, name) {
				http.Error(w, fmt.Sprintf("no part is called %q: exclude one of %s", name, strings.Join(names, ", ")), http.StatusBadRequest)
				return
			}
		}
		lines, well := verbose(r.Context(), what, parts, excluded)
		switch {
		case !well:
			w.WriteHeader(http.StatusServiceUnavailable)
		case !r.URL.Query().Has("verbose"):
			lines = "ok\n"
		}
		_, _ = w.Write([]byte(lines)) // the client may be gone
	}
}

// verbose is a line for each part, as Kubernetes' own have them, and whether all are well.
func verbose(ctx context.Context, what string, parts []part, excluded []string) (lines string, well bool) {
	var b strings.Builder
	well = true
	for _, p := range parts {
		if slices.Contains(excluded, p.name) {
			fmt.Fprintf(&b, "[+]%s excluded\n", p.name)
		} else if err := p.ask(ctx); err != nil {
			well = false
			fmt.Fprintf(&b, "[-]%s failed: %s\n", p.name, strings.ReplaceAll(err.Error(), "\n", "; "))
		} else {
			fmt.Fprintf(&b, "[+]%s ok\n", p.name)
		}
	}
	if well {
		fmt.Fprintf(&b, "%s passed\n", what)
	} else {
		fmt.Fprintf(&b, "%s failed\n", what)
	}
	return b.String(), well
}

// GetHealth is /livez or /readyz for who has the socket, and maybe no port.
func (a *adminAPI) GetHealth(ctx context.Context, req *pb.GetHealthRequest) (*pb.GetHealthResponse, error) {
	parts := a.node.readyParts()
	if req.GetLive() {
		parts = a.node.liveParts()
	}
	resp := &pb.GetHealthResponse{}
	for _, p := range parts {
		health := &pb.HealthPart{Name: p.name}
		if err := p.ask(ctx); err != nil {
			health.Problem = err.Error()
		}
		resp.Parts = append(resp.Parts, health)
	}
	return resp, nil
}
