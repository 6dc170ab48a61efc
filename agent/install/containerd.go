package install

import (
	"path/filepath"
	"slices"
	"strings"
)

const (
	containerdCerts  = "/etc/containerd/certs.d"
	containerdConfig = "etc/containerd/config.toml"
	// containerdDefault is where containerd 2 looks unless it is told.
	containerdDefault = containerdCerts + ":/etc/docker/certs.d"
)

// containerdSays is what containerd's configuration says of registries, as far as it
// matters here.
type containerdSays struct {
	version    string // of the configuration; "3" since containerd 2
	configPath string // "" when it is not said
	imports    []string
	noCRI      bool // what reads config_path does not run
	there      bool
}

// reads says whether registries' directories are looked for in dir.
func (c containerdSays) reads(dir string) bool {
	path := c.configPath
	if path == "" && c.there && c.version == "3" {
		path = containerdDefault
	}
	return !c.noCRI && slices.ContainsFunc(filepath.SplitList(path), func(p string) bool { return filepath.Clean(p) == dir })
}

// containerd reads config.toml and what it imports.
func (s System) containerd() containerdSays {
	c := readContainerd(s.path(containerdConfig))
	for _, pattern := range c.imports {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join("/etc/containerd", pattern)
		}
		files, _ := filepath.Glob(s.path(pattern)) // a bad pattern matches nothing
		for _, file := range files[:min(len(files), 100)] {
			if more := readContainerd(file); more.configPath != "" {
				c.configPath = more.configPath
			}
		}
	}
	return c
}

func readContainerd(path string) (c containerdSays) {
	data, err := readAny(path)
	if err != nil {
		return c
	}
	c.there = true
	table := ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if header, ok := strings.CutPrefix(line, "["); ok && !strings.Contains(line, "=") {
			table = tomlKey(strings.Trim(header, "[]"))
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		c.take(strings.TrimPrefix(table+"."+tomlKey(key), "."), strings.TrimSpace(value))
	}
	return c
}

// take understands the few keys that matter; tables and keys are joined by dots.
func (c *containerdSays) take(key, value string) {
	all := tomlStrings(value)
	switch {
	case key == "version":
		c.version, _, _ = strings.Cut(value, " ")
	case key == "imports":
		c.imports = all
	case key == "disabled_plugins":
		c.noCRI = slices.ContainsFunc(all, func(p string) bool {
			return p == "cri" || strings.HasSuffix(p, ".cri") || strings.HasSuffix(p, "cri.v1.images")
		})
	case strings.HasSuffix(key, ".cri.registry.config_path"), strings.HasSuffix(key, "cri.v1.images.registry.config_path"):
		if len(all) > 0 {
			c.configPath = all[0]
		}
	}
}

// tomlKey takes the quotes and blanks out of a dotted key.
func tomlKey(key string) string {
	return strings.NewReplacer(`"`, "", `'`, "", " ", "", "\t", "").Replace(key)
}

// tomlStrings are the quoted strings on a line, up to its comment.
func tomlStrings(line string) (all []string) {
	for {
		i := strings.IndexAny(line, `"'#`)
		if i < 0 || line[i] == '#' {
			return all
		}
		end := strings.IndexByte(line[i+1:], line[i])
		if end < 0 {
			return all
		}
		all = append(all, line[i+1:i+1+end])
		line = line[i+end+2:]
	}
}
