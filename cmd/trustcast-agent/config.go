package main

import (
	"errors"
	"flag"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/internal/cli"
)

// longestToken bounds a token file; tokens have a few hundred characters.
const longestToken = 64 << 10

// hostFlags describe this host's agent.
type hostFlags struct {
	join, token, tokenFile, name, dataDir, gossip, certsDir, logFormat string
}

func (f *hostFlags) add(flags *flag.FlagSet) {
	f.addDirs(flags)
	flags.StringVar(&f.token, "token", "", "join `token`; others on this machine can see it in the process list")
	flags.StringVar(&f.tokenFile, "token-file", "", "`file` with the join token, or - for standard input")
	flags.StringVar(&f.name, "name", "", "this host's `name` in the fleet (default the system's host name)")
	flags.StringVar(&f.gossip, "gossip-listen", "", "`HOST:PORT` for gossip, TCP and UDP, or off (default :7947)")
	flags.StringVar(&f.logFormat, "log-format", "text", "`text|json`, how to write the log")
}

func (f *hostFlags) addDirs(flags *flag.FlagSet) {
	flags.StringVar(&f.dataDir, "data-dir", "/var/lib/trustcast-agent", "`directory` of the identity and the last good state")
	flags.StringVar(&f.certsDir, "docker-certs-dir", "/etc/docker/certs.d", "`directory` that Docker reads CAs from")
}

// config is the agent's configuration with this log; the token is read now.
func (f *hostFlags) config(a *app, log *slog.Logger) (agent.Config, error) {
	token, err := f.readToken(a)
	if err != nil {
		return agent.Config{}, err
	}
	now, err := clock(a.getenv)
	if err != nil {
		return agent.Config{}, err
	}
	return agent.Config{
		DataDir: f.dataDir, Server: f.join, Token: token, Name: f.name, DockerCertsDir: f.certsDir,
		GossipListen: f.gossip, Log: log, Version: version, Layers: layers(a.getenv), Now: now,
	}, nil
}

func (f *hostFlags) readToken(a *app) (string, error) {
	switch {
	case f.tokenFile == "":
		return f.token, nil
	case f.token != "":
		return "", cli.Errorf(cli.Usage, "--token and --token-file are both given; leave one away")
	}
	in := a.stdin
	if f.tokenFile != "-" {
		file, err := os.Open(f.tokenFile)
		if errors.Is(err, fs.ErrNotExist) {
			return "", cli.Errorf(cli.NotFound, "the token file %s is not there; 'trustcast token create -q' on the server prints a token", f.tokenFile)
		}
		if err != nil {
			return "", cli.Errorf(cli.Failed, "the token file cannot be read: %w", err)
		}
		defer func() { _ = file.Close() }() // read-only
		in = file
	}
	raw, err := io.ReadAll(io.LimitReader(in, longestToken))
	if err != nil {
		return "", cli.Errorf(cli.Failed, "the token file %s cannot be read: %w", f.tokenFile, err)
	}
	token := strings.TrimSpace(string(raw))
	if token == "" {
		return "", cli.Errorf(cli.Usage, "the token file %s is empty; 'trustcast token create -q' on the server prints a token", f.tokenFile)
	}
	return token, nil
}

// logger writes transitions to stderr; stdout is for data.
func (f *hostFlags) logger(a *app) (*slog.Logger, error) {
	switch f.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(a.stderr, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(a.stderr, nil)), nil
	}
	return nil, cli.Errorf(cli.Usage, "--log-format %q is neither text nor json", f.logFormat)
}
