package parameters

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/distribution/distribution/v3/configuration"
)

// web demands a URL that can be asked.
func (r *reading) web(path, text string) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		r.wrong(path, "is no address like https://host/path")
	}
}

func (r *reading) notifications(c *configuration.Configuration) {
	for i, e := range c.Notifications.Endpoints {
		path := fmt.Sprintf("notifications.endpoints.%d.", i)
		if e.Name == "" {
			r.wrong(path+"name", "has no value: give the endpoint a name")
		}
		r.web(path+"url", e.URL)
		r.notBelow(path, map[string]time.Duration{"timeout": e.Timeout, "backoff": e.Backoff})
	}
}

// both refuses one of two keys that belong together.
func (r *reading) both(path, one, other string) {
	has := func(key string) bool { return r.text(path+"."+key) != "" }
	for _, pair := range [][2]string{{one, other}, {other, one}} {
		if has(pair[0]) && !has(pair[1]) {
			r.wrong(path+"."+pair[1], "has no value: give both %s and %s, or neither", one, other)
		}
	}
}

// notBelow refuses durations under zero, which timers panic about.
func (r *reading) notBelow(path string, durations map[string]time.Duration) {
	for key, d := range durations {
		if d < 0 {
			r.wrong(path+key, "%s is less than nothing: leave it out for the default", d)
		}
	}
}

// mostConnections is what a pool is made for at once.
const mostConnections = 100_000

func (r *reading) redis(c *configuration.Configuration) {
	o := c.Redis.Options
	for i, addr := range o.Addrs {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			r.wrong(fmt.Sprintf("redis.addrs.%d", i), "%q is no HOST:PORT", WithoutPassword(addr))
		}
	}
	if len(o.Addrs) == 0 && child(r.root, "redis") != nil {
		r.wrong("redis.addrs", "has no value: give the HOST:PORT of a Redis, or leave redis out")
	}
	for key, n := range map[string]int{
		"poolsize": o.PoolSize, "minidleconns": o.MinIdleConns, "maxidleconns": o.MaxIdleConns, "maxactiveconns": o.MaxActiveConns, "db": o.DB,
	} {
		if n < 0 || n > mostConnections {
			r.wrong("redis."+key, "%d is not from 0 to %d", n, mostConnections)
		}
	}
	if r.opts.docker() {
		return // files are the container's
	}
	if t := c.Redis.TLS; (t.Certificate == "") != (t.Key == "") {
		r.wrong("redis.tls", "needs both certificate and key, or neither")
	} else if t.Certificate != "" {
		if _, err := tls.LoadX509KeyPair(t.Certificate, t.Key); err != nil {
			r.wrong("redis.tls.certificate", "cannot be used: %w", err)
		}
	}
	for i, file := range c.Redis.TLS.RootCAs {
		if _, err := os.ReadFile(file); err != nil {
			r.wrong(fmt.Sprintf("redis.tls.rootcas.%d", i), "cannot be read: %w", err)
		}
	}
}

func (r *reading) health(c *configuration.Configuration) {
	r.notBelow("health.storagedriver.", map[string]time.Duration{"interval": c.Health.StorageDriver.Interval})
	seen := map[string]bool{"": true}
	once := func(path, name string) {
		if seen[name] {
			r.wrong(path, "%q is empty or checked twice", WithoutPassword(name))
		}
		seen[name] = true
	}
	for i, f := range c.Health.FileCheckers {
		path := fmt.Sprintf("health.file.%d.", i)
		once(path+"file", f.File)
		r.notBelow(path, map[string]time.Duration{"interval": f.Interval})
	}
	for i, h := range c.Health.HTTPCheckers {
		path := fmt.Sprintf("health.http.%d.", i)
		once(path+"uri", h.URI)
		r.web(path+"uri", h.URI)
		r.notBelow(path, map[string]time.Duration{"interval": h.Interval, "timeout": h.Timeout})
	}
	for i, t := range c.Health.TCPCheckers {
		path := fmt.Sprintf("health.tcp.%d.", i)
		once(path+"addr", t.Addr)
		if _, _, err := net.SplitHostPort(t.Addr); err != nil {
			r.wrong(path+"addr", "%q is no HOST:PORT", WithoutPassword(t.Addr))
		}
		r.notBelow(path, map[string]time.Duration{"interval": t.Interval, "timeout": t.Timeout})
	}
}

func (r *reading) proxy(c *configuration.Configuration) {
	switch {
	case child(r.root, "proxy") == nil:
		return
	case c.Proxy.RemoteURL == "":
		r.wrong("proxy.remoteurl", "has no value: give the registry that is mirrored, or leave proxy out")
		return
	}
	r.web("proxy.remoteurl", c.Proxy.RemoteURL)
	u, err := url.Parse(c.Proxy.RemoteURL)
	switch {
	case err != nil: // said by web
	case u.User != nil:
		r.wrong("proxy.remoteurl", "give who signs in as %s and %s", keyPath("proxy.username"), keyPath("proxy.password"))
	case u.Path != "" || u.RawQuery != "":
		r.wrong("proxy.remoteurl", "ends with its host: leave %s out", u.RequestURI())
	}
	r.both("proxy", "username", "password")
	if ttl := c.Proxy.TTL; r.opts.docker() && r.driver() == filesystem && ttl != nil && *ttl != 0 {
		r.wrong("proxy.ttl", "replicas write nothing beside the images, and forget with each start what is to be removed: leave it out, and what was pulled stays")
	}
	if c.Proxy.Exec != nil && c.Proxy.Exec.Command == "" {
		r.wrong("proxy.exec.command", "has no value: give a command, or leave exec out")
	}
}

// network refuses what a replica of Docker without one cannot do.
func (r *reading) network(c *configuration.Configuration) {
	if !r.opts.docker() || r.opts.Network {
		return
	}
	refuse := func(needed bool, path string) {
		if needed {
			r.wrong(path, "needs a network, and replicas have none: give one with --registry-network NAME")
		}
	}
	driver := r.driver()
	refuse(driver != filesystem && driver != "inmemory", "storage."+driver)
	refuse(len(c.Redis.Options.Addrs) > 0, "redis.addrs")
	refuse(len(c.Notifications.Endpoints) > 0, "notifications.endpoints")
	refuse(c.Proxy.RemoteURL != "", "proxy.remoteurl")
	refuse(len(c.Health.HTTPCheckers) > 0, "health.http")
	refuse(len(c.Health.TCPCheckers) > 0, "health.tcp")
	refuse(len(c.Log.Hooks) > 0, "log.hooks")
	for i, m := range c.Middleware["storage"] {
		refuse(m.Name == "cloudfront", fmt.Sprintf("middleware.storage.%d.name", i))
	}
}
