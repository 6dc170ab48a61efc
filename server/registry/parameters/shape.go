package parameters

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	yaml2 "go.yaml.in/yaml/v2"
	"go.yaml.in/yaml/v3"

	"github.com/trustcast/trustcast/internal/near"
)

// storageShape is what distribution takes below storage, where its own type takes
// anything.
type storageShape struct {
	Filesystem struct {
		RootDirectory string
		MaxThreads    uint64
	}
	InMemory struct{}
	S3       s3Shape
	S3AWS    s3Shape
	// The rest of the image's drivers, whose parameters only the image knows.
	Azure, GCS, Swift, OSS map[string]any

	Maintenance struct {
		UploadPurging struct {
			Enabled       bool
			Age, Interval time.Duration
			DryRun        bool
		}
		ReadOnly struct{ Enabled bool }
	}
	Cache struct {
		BlobDescriptor, LayerInfo string
		BlobDescriptorSize        int
	}
	Delete   struct{ Enabled bool }
	Redirect struct{ Disable bool }
	Tag      struct{ ConcurrencyLimit int }
}

// s3Shape is what distribution's S3 driver takes.
type s3Shape struct {
	AccessKey, SecretKey, SessionToken       string
	Region, RegionEndpoint, RedirectEndpoint string
	Bucket, RootDirectory, StorageClass      string
	KeyID, ObjectACL, UserAgent, LogLevel    string
	ForcePathStyle, Encrypt, Secure, V4Auth  bool
	SkipVerify, UseDualStack, Accelerate     bool
	UseFIPSEndpoint                          bool
	ChunkSize, MultipartCopyChunkSize        int64
	MultipartCopyMaxConcurrency              int64
	MultipartCopyThresholdSize               int64
}

// unmarshaler is what v2 asks types for.
var unmarshaler = reflect.TypeFor[yaml2.Unmarshaler]()

// shape checks keys and types, and the whole as distribution reads it.
func (r *reading) shape() error {
	if n := child(r.root, "storage"); n != nil && n.Kind == yaml.ScalarNode {
		set(r.root, "storage", r.named(n))
	}
	r.shapeOf(reflect.TypeFor[configuration.Configuration](), r.root, "")
	if names := r.driversNamed(); len(names) > 1 {
		r.wrong("storage."+names[1], "is a second storage driver beside %s: keep one", names[0])
	}
	if n := child(r.root, "version"); n != nil && n.Value != string(configuration.CurrentVersion) {
		r.mistake(n, "version", "%q is not known: write %s, or leave it out", n.Value, configuration.CurrentVersion)
	}
	if err := r.done(); err != nil {
		return err
	}
	if _, err := decode(r.root); err != nil { // what the walk let through
		return fmt.Errorf("%s: distribution cannot read it: %s", r.opts.File, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	return nil
}

func (r *reading) shapeOf(t reflect.Type, n *yaml.Node, path string) {
	switch {
	case t == reflect.TypeFor[configuration.Storage]():
		t = reflect.TypeFor[storageShape]()
	case t == reflect.TypeFor[configuration.Auth]():
		return // owned
	case t.Kind() == reflect.Pointer:
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(unmarshaler) || scalar(t) {
		r.value(t, n, path)
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		if r.is(yaml.MappingNode, n, path) {
			r.keys(t, n, path)
		}
	case reflect.Map:
		if r.is(yaml.MappingNode, n, path) {
			for i := 0; i < len(n.Content); i += 2 {
				r.shapeOf(t.Elem(), n.Content[i+1], join(path, n.Content[i].Value))
			}
		}
	case reflect.Slice:
		if r.is(yaml.SequenceNode, n, path) {
			for i, item := range n.Content {
				r.shapeOf(t.Elem(), item, fmt.Sprintf("%s.%d", path, i))
			}
		}
	}
}

// is demands a kind of node.
func (r *reading) is(kind yaml.Kind, n *yaml.Node, path string) bool {
	if n.Kind == kind {
		return true
	}
	r.mistake(n, path, "takes %s, and here is %s", kindOf(&yaml.Node{Kind: kind}), kindOf(n))
	return false
}

func (r *reading) keys(t reflect.Type, n *yaml.Node, path string) {
	for _, key := range r.empty[n] {
		if _, known := fieldOfKey(t, key.Value); !known { // its text may be a value: "password:secret" is a key
			r.mistake(key, path, "has a key without a value that is none of %s: put a blank after the colon, or remove it",
				strings.Join(fieldNames(t, func(_ reflect.StructField, key string) string { return key }), ", "))
		}
	}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if below, known := fieldOfKey(t, key.Value); known {
			r.shapeOf(below, value, join(path, key.Value))
			continue
		}
		at := key
		if _, other := r.from[value]; other {
			at = value
		}
		names := fieldNames(t, func(_ reflect.StructField, key string) string { return key })
		switch {
		case path == "storage":
			r.mistake(at, join(path, key.Value), "neither a storage driver (%s) nor a parameter (maintenance, cache, delete, redirect, tag)", r.drivers())
		case len(names) == 0:
			r.mistake(at, join(path, key.Value), "there is no such key, and %s takes none: remove it", keyPath(path))
		default:
			r.mistake(at, join(path, key.Value), "there is no such key; %s takes %s", keyPath(path), suggest(key.Value, names))
		}
	}
}

// value checks a scalar of a type as distribution will read it. A number or a truth
// value in quotes is taken for one.
func (r *reading) value(t reflect.Type, n *yaml.Node, path string) {
	if !r.is(yaml.ScalarNode, n, path) {
		return
	}
	if t.Kind() != reflect.String && n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
		n.Style, n.Tag = 0, ""
	}
	v := reflect.New(t)
	err := into(n, v.Interface())
	if err == nil && integer(t) {
		var read any // 1.5 would be cut to 1 here, and distribution panics about it there
		if err = into(n, &read); err == nil && !integer(reflect.TypeOf(read)) {
			err = fmt.Errorf("no integer")
		}
	}
	if err == nil {
		return
	}
	shown := fmt.Sprintf("%q", n.Value)
	if isSecret(keyPath(path)) {
		shown = hidden
	}
	if reflect.PointerTo(t).Implements(unmarshaler) {
		r.mistake(n, path, "%s", strings.ReplaceAll(err.Error(), "yaml: ", ""))
		return
	}
	r.mistake(n, path, "%s is not %s", shown, wanted(t))
}

// integer says whether a type is one, without durations, which are texts.
func integer(t reflect.Type) bool {
	return t != nil && t != reflect.TypeFor[time.Duration]() && t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64
}

func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "a duration: write it like 30s, 10m or 168h"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uint64:
		return "a whole number from 0 on"
	case integer(t):
		return "a whole number"
	}
	return "a text"
}

// field finds a struct's field by distribution's name for variables, the field's own
// in capitals; inlined ones count as the struct's.
func field(t reflect.Type, name string) (key string, of reflect.Type, known bool) {
	eachField(t, func(f reflect.StructField, k string) {
		if strings.ToUpper(f.Name) == name {
			key, of, known = k, f.Type, true
		}
	})
	return key, of, known
}

// fieldOfKey finds it by its key in YAML.
func fieldOfKey(t reflect.Type, key string) (of reflect.Type, known bool) {
	eachField(t, func(f reflect.StructField, k string) {
		if k == key {
			of, known = f.Type, true
		}
	})
	return of, known
}

func eachField(t reflect.Type, visit func(f reflect.StructField, key string)) {
	for f := range t.Fields() {
		key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			eachField(f.Type, visit)
		case key == "":
			visit(f, strings.ToLower(f.Name))
		case key != "-":
			visit(f, key)
		}
	}
}

func fieldNames(t reflect.Type, name func(reflect.StructField, string) string) []string {
	var names []string
	eachField(t, func(f reflect.StructField, key string) { names = append(names, name(f, key)) })
	slices.Sort(names)
	return names
}

// suggest names the word that was meant, or all.
func suggest(word string, known []string) string {
	list := strings.Join(known, ", ")
	if meant := near.Word(word, known); meant != "" {
		return list + "; did you mean " + meant + "?"
	}
	return list
}
