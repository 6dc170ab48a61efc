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
	"github.com/trustcast/trustcast/internal/logging"
	"github.com/trustcast/trustcast/internal/memory"
)

// longestToken bounds a token file; tokens have a few hundred characters.
const longestToken = 64 << 10

// defaultCertsDir is where Docker looks.
const defaultCertsDir = "/etc/docker/certs.d"

// hostFlags describe this host's agent.
type hostFlags struct {
	join, token, tokenFile, name, dataDir, gossip, certsDir, runtimes, logFormat, logLevel string
}

func (f *hostFlags) add(flags *flag.FlagSet) {
	f.addDirs(flags)
	flags.StringVar(&f.token, "token", "", "join `token`; others on this machine can see it in the process list")
	flags.StringVar(&f.tokenFile, "token-file", "", "`file` with the join token, or - for standard input")
	flags.StringVar(&f.name, "name", "", "this host's `name` in the fleet (default the system's host name)")
	flags.StringVar(&f.gossip, "gossip-listen", "", "`HOST:PORT` for gossip, TCP and UDP, or off (default :7947)")
	flags.StringVar(&f.runtimes, "runtimes", "", "`auto|LIST`, whose directories the CA is installed into: of docker, rootless, rootless:USER, containers (or podman, buildah, skopeo, cri-o), containerd (default auto, or docker with another --docker-certs-dir)")
	flags.StringVar(&f.logFormat, "log-format", logging.Formats()[0], "`"+strings.Join(logging.Formats(), "|")+"`, how to write the log; auto is journal where systemd takes it, else text")
	flags.StringVar(&f.logLevel, "log-level", logging.Levels()[0], "`"+strings.Join(logging.Levels(), "|")+"`, write this and what is more urgent")
}

func (f *hostFlags) addDirs(flags *flag.FlagSet) {
	flags.StringVar(&f.dataDir, "data-dir", "/var/lib/trustcast-agent", "`directory` of the identity and the last good state")
	flags.StringVar(&f.certsDir, "docker-certs-dir", defaultCertsDir, "`directory` that Docker reads CAs from")
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
	runtimes, err := f.runtimeList()
	if err != nil {
		return agent.Config{}, err
	}
	return agent.Config{
		DataDir: f.dataDir, Server: f.join, Token: token, Name: f.name, DockerCertsDir: f.certsDir, Runtimes: runtimes,
		GossipListen: f.gossip, Log: log, Version: version, Layers: layers(a.getenv), Now: now, Resting: memory.Return,
	}, nil
}

// runtimeList is what to install for. Whoever names a directory for Docker's CAs means
// that one: nothing is written beside it unless runtimes are named, too.
func (f *hostFlags) runtimeList() ([]string, error) {
	list := strings.Split(strings.ReplaceAll(f.runtimes, " ", ""), ",")
	switch {
	case f.runtimes != "":
	case f.certsDir != defaultCertsDir:
		return nil, nil
	default:
		list = []string{agent.AutoRuntimes}
	}
	list, err := agent.ParseRuntimes(list)
	if err != nil {
		return nil, cli.Errorf(cli.Usage, "--runtimes: %w", err)
	}
	return list, nil
}

func (f *hostFlags) readToken(a *app) (string, error) {
	switch {
	case f.tokenFile == "":
		return f.token, checkToken(f.token)
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
	return token, checkToken(token)
}

// checkToken refuses what is no token before anything is done with it; "" is none.
func checkToken(token string) error {
	if token == "" {
		return nil
	}
	if err := agent.CheckToken(token); err != nil {
		return cli.Errorf(cli.Usage, "%w", err)
	}
	return nil
}

// logger writes transitions to stderr; stdout is for data.
func (f *hostFlags) logger(a *app) (*slog.Logger, error) {
	log, err := logging.New(a.stderr, a.getenv, f.logFormat, f.logLevel)
	if err != nil {
		return nil, cli.Errorf(cli.Usage, "%w", err)
	}
	return log, nil
}
