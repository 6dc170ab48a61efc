// Command spy takes the registry's place in a replica and tells what can be seen
// and done there. It answers on the socket of the configuration that it is started
// with, as a registry would, below /spy/ about the container, and at /v2/spy/header,
// which the edge lets pass, about the request.
//
// With SPY=deaf it never listens; with SPY=sick it answers 503 to everything.
package main

import (
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// addr finds the socket in a configuration without a YAML library.
var addr = regexp.MustCompile(`(?m)addr"?:\s*"?([^"\s,}]+)`)

func main() {
	if len(os.Args) != 3 || os.Args[1] != "serve" {
		log.Fatalf("usage: registry serve CONFIG, not %q", os.Args)
	}
	config, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	found := addr.FindSubmatch(config)
	if found == nil {
		log.Fatalf("no addr in %s", config)
	}
	if os.Getenv("SPY") == "deaf" {
		log.Print("listens to nobody")
		time.Sleep(time.Hour)
	}
	listener, err := net.Listen("unix", string(found[1]))
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, routes(os.Getenv("SPY") == "sick")))
}

func routes(sick bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/", func(w http.ResponseWriter, _ *http.Request) {
		if sick {
			http.Error(w, "sick", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /v2/spy/header", func(w http.ResponseWriter, r *http.Request) { _ = r.Header.Write(w) }) // to who asks
	mux.HandleFunc("GET /spy/tree", func(w http.ResponseWriter, r *http.Request) { tree(w, r.FormValue("path")) })
	mux.HandleFunc("GET /spy/file", func(w http.ResponseWriter, r *http.Request) {
		content, err := os.ReadFile(r.FormValue("path"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		_, _ = w.Write(content)
	})
	mux.HandleFunc("GET /spy/write", func(w http.ResponseWriter, r *http.Request) {
		if err := os.WriteFile(r.FormValue("path"), []byte("by the spy"), 0o600); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
		}
	})
	mux.HandleFunc("GET /spy/interfaces", func(w http.ResponseWriter, _ *http.Request) {
		all, err := net.Interfaces()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		for _, i := range all {
			_, _ = fmt.Fprintln(w, i.Name)
		}
	})
	return mux
}

// tree lists everything below a path, and what cannot be looked into.
func tree(w http.ResponseWriter, path string) {
	_ = filepath.WalkDir(path, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			_, _ = fmt.Fprintln(w, path, "ERROR", err)
			return nil // the others
		}
		_, _ = fmt.Fprintln(w, path)
		return nil
	})
}
