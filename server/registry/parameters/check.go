package parameters

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	storagemiddleware "github.com/distribution/distribution/v3/registry/storage/driver/middleware"
	"go.yaml.in/yaml/v3"

	// What the embedded registry can do.
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/middleware/cloudfront"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/middleware/redirect"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/middleware/rewrite"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/s3-aws"
)

// rules checks what no type says: what distribution would panic about, do in
// silence, or not do at all.
func (r *reading) rules() error {
	c, err := decode(r.root)
	if err != nil {
		return fmt.Errorf("%s: distribution cannot read it: %s", r.opts.File, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	for _, rule := range []func(*configuration.Configuration){
		r.storage, r.maintenance, r.cache, r.logging, r.headers, r.limits, r.notifications,
		r.redis, r.health, r.proxy, r.validation, r.middleware, r.network,
	} {
		rule(c)
	}
	if err := r.done(); err != nil {
		return err
	}
	return r.open(c)
}

// wrong notes a mistake at the value of a path, or at what there is of it.
func (r *reading) wrong(path, format string, args ...any) {
	n := r.root
	for part := range strings.SplitSeq(path, ".") {
		next := child(n, part)
		if i, err := strconv.Atoi(part); err == nil && n.Kind == yaml.SequenceNode && i < len(n.Content) {
			next = n.Content[i]
		}
		if next == nil {
			break
		}
		n = next
	}
	r.mistake(r.writtenAt(n), path, format, args...)
}

func (r *reading) storage(*configuration.Configuration) {
	driver := r.driver()
	if !r.opts.docker() && !slices.Contains(embeddedDrivers, driver) {
		r.wrong("storage."+driver, "the embedded registry has no storage driver %s, only %s; with --engine docker and --registry-network it can be used", driver, r.drivers())
	}
	if driver == "s3" || driver == "s3aws" {
		r.both("storage."+driver, "accesskey", "secretkey")
		for _, key := range []string{"regionendpoint", "redirectendpoint"} {
			if _, err := url.Parse(r.text("storage." + driver + "." + key)); err != nil {
				r.wrong("storage."+driver+"."+key, "is no address like https://host:port")
			}
		}
	}
	if driver == "inmemory" && r.opts.Replicas > 1 {
		r.wrong("storage.inmemory", "each of %d replicas would have images of its own: give --replicas 1, or another driver", r.opts.Replicas)
	}
}

func (r *reading) maintenance(*configuration.Configuration) {
	for _, key := range []string{"age", "interval"} {
		const path = "storage.maintenance.uploadpurging."
		if r.duration(path+key) <= 0 {
			r.wrong(path+key, "must be more than nothing, like 24h; to purge no uploads set %senabled to false", keyPath(path))
		}
	}
	var limit int
	if n := at(r.root, "storage.tag.concurrencylimit"); n != nil {
		if err := into(n, &limit); err == nil && limit < 0 {
			r.wrong("storage.tag.concurrencylimit", "%d is less than 0: leave it out for no limit of your own", limit)
		}
	}
}

func (r *reading) cache(c *configuration.Configuration) {
	for _, key := range []string{"blobdescriptor", "layerinfo"} {
		path := "storage.cache." + key
		switch v := r.text(path); v {
		case "", "inmemory":
		case "redis":
			if len(c.Redis.Options.Addrs) == 0 {
				r.wrong(path, "redis needs %s", keyPath("redis.addrs"))
			}
		default:
			r.wrong(path, "%q is no cache: write inmemory or redis, or leave it out", v)
		}
	}
}

func (r *reading) logging(c *configuration.Configuration) {
	if !r.opts.docker() && at(r.root, "log.accesslog.disabled") != nil && !c.Log.AccessLog.Disabled {
		r.wrong("log.accesslog.disabled", "the embedded registry writes no access log; requests are counted in /metrics: remove it")
	}
	switch c.Log.Formatter {
	case "", "text", "json", "logstash":
	default:
		r.wrong("log.formatter", "%q is none of text, json, logstash", c.Log.Formatter)
	}
	for i, hook := range c.Log.Hooks {
		if hook.Type != "mail" {
			r.wrong(fmt.Sprintf("log.hooks.%d.type", i), "%q is no hook: there is only mail", hook.Type)
		}
	}
}

// fieldName is what a header may be called.
var fieldName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

func (r *reading) headers(c *configuration.Configuration) {
	check := func(path string, headers map[string][]string) {
		for name, values := range headers {
			if !fieldName.MatchString(name) {
				r.wrong(path, "%q is no name of a header", name)
			}
			for _, v := range values {
				if strings.ContainsAny(v, "\r\n\x00") {
					r.wrong(path+"."+name, "a header's value is one line")
				}
			}
		}
	}
	check("http.headers", c.HTTP.Headers)
	for i, e := range c.Notifications.Endpoints {
		check(fmt.Sprintf("notifications.endpoints.%d.headers", i), e.Headers)
	}
	for i, h := range c.Health.HTTPCheckers {
		check(fmt.Sprintf("health.http.%d.headers", i), h.Headers)
	}
}

func (r *reading) limits(c *configuration.Configuration) {
	for path, n := range map[string]int{"catalog.maxentries": c.Catalog.MaxEntries, "tags.maxtags": c.Tags.MaxTags} {
		if n <= 0 {
			r.wrong(path, "%d is less than 1: give a number, or leave it out for %d", n, pageSize)
		}
	}
}

func (r *reading) validation(c *configuration.Configuration) {
	for key, list := range map[string][]string{"allow": c.Validation.Manifests.URLs.Allow, "deny": c.Validation.Manifests.URLs.Deny} {
		var all []string
		for i, text := range list {
			path := fmt.Sprintf("validation.manifests.urls.%s.%d", key, i)
			if _, err := regexp.Compile(text); err != nil {
				r.wrong(path, "%w", err)
			} else if _, err := regexp.Compile("(?:" + text + ")"); err != nil { // as distribution does
				r.wrong(path, "ends within a quotation: close it with \\E")
			}
			all = append(all, "(?:"+text+")")
		}
		if len(r.mistakes) == 0 {
			if _, err := regexp.Compile(strings.Join(all, "|")); err != nil {
				r.wrong("validation.manifests.urls."+key, "%w", err)
			}
		}
	}
}

// middlewares that the embedded registry has.
var middlewares = []string{"cloudfront", "redirect", "rewrite"}

func (r *reading) middleware(c *configuration.Configuration) {
	for kind, list := range c.Middleware {
		path := "middleware." + kind
		if kind != "storage" && len(list) > 0 {
			r.wrong(path, "the registry has none of this kind; there is only %s", keyPath("middleware.storage"))
			continue
		}
		for i, m := range list {
			path := fmt.Sprintf("%s.%d", path, i)
			switch {
			case m.Disabled:
				r.wrong(path+".disabled", "distribution starts it nevertheless: remove the item")
			case r.opts.docker():
			case !slices.Contains(middlewares, m.Name):
				r.wrong(path+".name", "%q is none of %s", m.Name, strings.Join(middlewares, ", "))
			case m.Name != "cloudfront": // which reads a key and asks Amazon: when the registry starts
				r.tryMiddleware(path, m)
			}
		}
	}
}

func (r *reading) tryMiddleware(path string, m configuration.Middleware) {
	defer func() {
		if p := recover(); p != nil {
			r.wrong(path+".options", "distribution refuses them: %v", p)
		}
	}()
	if _, err := storagemiddleware.Get(context.Background(), m.Name, m.Options, inmemory.New()); err != nil {
		r.wrong(path+".options", "distribution refuses them: %w", err)
	}
}

// open tries the storage driver; none of them asks a network yet.
func (r *reading) open(c *configuration.Configuration) (err error) {
	driver := r.driver()
	if r.opts.docker() || driver == filesystem {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			r.wrong("storage."+driver, "distribution refuses it: %v", p)
			err = r.done()
		}
	}()
	if _, bad := factory.Create(context.Background(), driver, c.Storage.Parameters()); bad != nil {
		r.wrong("storage."+driver, "%w", bad)
	}
	return r.done()
}
