package doctor

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"github.com/trustcast/trustcast/internal/foreign"
)

// engine is a daemon that pulls, as its process and its files show it; no socket is
// asked.
type engine struct {
	running bool
	args    []string
	env     []string
	// hidden: its environment may be read by root alone.
	hidden bool
	major  int // of its version; 0 when unknown
	config daemonConfig
	// file that config is from; "" when there is none. damaged says what is wrong with it.
	file, damaged string
}

// daemonConfig is the part of daemon.json that matters to a pull.
type daemonConfig struct {
	Insecure []string        `json:"insecure-registries"`
	Features map[string]bool `json:"features"`
	DataRoot string          `json:"data-root"`
	Proxies  struct {
		HTTP  string `json:"http-proxy"`
		HTTPS string `json:"https-proxy"`
		No    string `json:"no-proxy"`
	} `json:"proxies"`
}

// findEngines looks for the daemons of this host.
func (e *exam) findEngines() map[string]engine {
	found := map[string]engine{}
	for _, program := range []string{"dockerd", "containerd"} {
		d := e.findProcess(program)
		if program == "dockerd" {
			e.readConfig(&d)
		}
		if !d.running {
			d.env = e.unitEnvironment(map[string]string{"dockerd": "docker", "containerd": "containerd"}[program])
		}
		found[program] = d
	}
	return found
}

// flag is the last value of a flag on the daemon's command line.
func (d engine) flag(name string) string {
	all := d.flags(name)
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1]
}

func (d engine) flags(name string) (values []string) {
	for i, arg := range d.args {
		if v, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
			values = append(values, v)
		} else if arg == "--"+name && i+1 < len(d.args) {
			values = append(values, d.args[i+1])
		}
	}
	return values
}

func (e *exam) readConfig(d *engine) {
	path := d.flag("config-file")
	if path == "" {
		path = "/etc/docker/daemon.json"
	}
	raw, _, err := foreign.ReadFile(e.at(path))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	d.file = e.at(path)
	if err == nil && len(raw) > 0 {
		err = json.Unmarshal(raw, &d.config)
	}
	if err != nil {
		d.damaged = err.Error()
	}
}

// settings says what is wrong with daemon.json itself.
func (e *exam) settings() {
	if d := e.engines["dockerd"]; d.damaged != "" {
		e.add("engine.config", Warn, d.file, "mend it; `dockerd --validate` says where", "%s cannot be read (%s): Docker will not start again with it", d.file, d.damaged)
	}
}

// unitEnvironment is what systemd would start a daemon with, as far as drop-ins say it.
func (e *exam) unitEnvironment(unit string) (env []string) {
	for _, pattern := range []string{"/etc/systemd/system/" + unit + ".service", "/etc/systemd/system/" + unit + ".service.d/*.conf"} {
		files, err := filepath.Glob(e.at(pattern))
		if err != nil {
			continue
		}
		for _, file := range files {
			raw, err := os.ReadFile(file)
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(raw)) {
				if v, ok := strings.CutPrefix(strings.TrimSpace(line), "Environment="); ok {
					env = append(env, assignments(v)...)
				}
			}
		}
	}
	return env
}

// assignments splits systemd's list of assignments, each perhaps in quotes.
func assignments(s string) (all []string) {
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		end := " "
		if s[0] == '"' || s[0] == '\'' {
			end, s = s[:1], s[1:]
		}
		one, rest, _ := strings.Cut(s, end)
		all, s = append(all, one), rest
	}
	return all
}

// proxies are the daemon's, in its own order: flags and daemon.json before the
// environment.
func (d engine) proxies() httpproxy.Config {
	env := map[string]string{}
	for _, pair := range d.env {
		if k, v, ok := strings.Cut(pair, "="); ok {
			env[k] = v
		}
	}
	first := func(values ...string) string {
		for _, v := range values {
			if v != "" {
				return v
			}
		}
		return ""
	}
	return httpproxy.Config{
		HTTPProxy:  first(d.flag("http-proxy"), d.config.Proxies.HTTP, env["HTTP_PROXY"], env["http_proxy"]),
		HTTPSProxy: first(d.flag("https-proxy"), d.config.Proxies.HTTPS, env["HTTPS_PROXY"], env["https_proxy"]),
		NoProxy:    first(d.flag("no-proxy"), d.config.Proxies.No, env["NO_PROXY"], env["no_proxy"]),
	}
}
