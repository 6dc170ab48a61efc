package server

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strconv"
	"time"
)

// maxProfile is how long a profile may take; what it records is kept in memory meanwhile.
const maxProfile = time.Minute

// addProfiles answers Go's profiles below /debug/pprof/. A profile of the heap is of
// all that is in memory, so secrets may be in it: only this machine gets them, and no
// web page that a browser on it shows, whose requests have another Host.
//
// net/http/pprof and libraries of the registry put handlers on the default mux, too;
// nothing serves that.
func addProfiles(mux *http.ServeMux) {
	for path, answer := range map[string]http.HandlerFunc{
		"GET /debug/pprof/":        pprof.Index, // and the profiles that have a name
		"GET /debug/pprof/profile": pprof.Profile,
		"GET /debug/pprof/trace":   pprof.Trace,
		"GET /debug/pprof/symbol":  pprof.Symbol,
		"POST /debug/pprof/symbol": pprof.Symbol,
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if !isLoopback(r.Host) {
				http.Error(w, "profiles are for this machine alone: ask 127.0.0.1 or localhost", http.StatusForbidden)
				return
			}
			if r.Header.Get("Sec-Fetch-Site") == "cross-site" {
				http.Error(w, "profiles are not for other web pages", http.StatusForbidden)
				return
			}
			if s, err := strconv.ParseFloat(cmp.Or(r.URL.Query().Get("seconds"), "0"), 64); err != nil || s > maxProfile.Seconds() {
				http.Error(w, fmt.Sprintf("seconds must be a number up to %.0f", maxProfile.Seconds()), http.StatusBadRequest)
				return
			}
			// Who reads nothing makes the server keep what it has recorded.
			if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(2 * maxProfile)); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			answer(w, r)
		})
	}
}

// checkProfiles: they are served where only this machine can ask.
func (cfg Config) checkProfiles() error {
	listen := orDefault(cfg.HTTPListen, defaultHTTP)
	if lis := cfg.Sockets[socketHTTP]; lis != nil {
		listen = lis.Addr().String()
	}
	switch {
	case !cfg.Pprof:
		return nil
	case listen == off:
		return fmt.Errorf("--pprof has no port with --http-listen off: leave --pprof out, or give --http-listen a loopback address like %s", defaultHTTP)
	case !isLoopback(listen):
		return fmt.Errorf("--pprof with --http-listen %s would show the server's memory, secrets among it, to other machines: leave --pprof out, or give --http-listen a loopback address like %s", listen, defaultHTTP)
	}
	return nil
}

// isLoopback says whether HOST or HOST:PORT is this machine, and nobody else's.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
