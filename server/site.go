package server

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/durable"
	"github.com/trustcast/trustcast/server/archive"
	"github.com/trustcast/trustcast/server/authority"
	"github.com/trustcast/trustcast/server/identity"
	"github.com/trustcast/trustcast/server/records"
	"github.com/trustcast/trustcast/server/users"
)

// siteRecord is the record of what Init fixes.
const siteRecord = "site"

// site is what a data directory is for.
type site struct {
	Domain  string   `json:"domain"`
	Aliases []string `json:"aliases"`
	Subject string   `json:"subject"`
	// Engine and Volume as Init was told; empty in records of before there was a
	// choice.
	Engine string `json:"engine,omitempty"`
	Volume string `json:"volume,omitempty"`
	// Lives as Init was told; zero: the server's defaults.
	CALife      time.Duration `json:"ca_life,omitempty"`
	LeafLife    time.Duration `json:"leaf_life,omitempty"`
	ControlLife time.Duration `json:"control_life,omitempty"`
	// Adopted is when a plain registry was taken over; zero: it was made anew.
	Adopted time.Time `json:"adopted,omitzero"`
}

// names returns the domain and its aliases, parsed.
func (s site) names() ([]certs.Name, error) {
	domain, err := certs.ParseName(s.Domain, certs.DefaultPort)
	if err != nil {
		return nil, fmt.Errorf("domain: %w", err)
	}
	names := []certs.Name{domain}
	for _, alias := range s.Aliases {
		n, err := certs.ParseName(alias, domain.Port)
		if err != nil {
			return nil, fmt.Errorf("alias: %w", err)
		}
		if slices.Contains(names, n) {
			return nil, fmt.Errorf("alias: %s is named twice: leave one out", n)
		}
		names = append(names, n)
	}
	return names, nil
}

// Initialized says whether a data directory holds a registry, or one that a restore
// was about to put there when it was cut short.
func Initialized(dataDir string) bool {
	if archive.Switching(dataDir) {
		return true
	}
	_, err := os.Stat(filepath.Join(layout{dataDir}.records(), siteRecord+".json"))
	return err == nil
}

// InitResult is what Init made.
type InitResult struct {
	// Domain is host:port; FleetID is random; Fingerprint is of the first bundle.
	Domain, FleetID string
	Fingerprint     certs.Fingerprint
	// User is the first user; Password is set when it was generated, and is
	// kept nowhere else.
	User, Password string
	// Adopted is what was taken over; nil: it is a new registry.
	Adopted *AdoptResult
}

// Init makes a registry in a data directory, or takes a plain one over: registry CA,
// control CA, and the first user. It checks everything before it changes anything,
// and refuses a directory that holds a registry already: a CA is made once. An Init
// that was cut off is repeated from its start, since the site record comes last.
func Init(ctx context.Context, cfg InitConfig) (InitResult, error) {
	if err := cfg.adoptVolume(); err != nil {
		return InitResult{}, err
	}
	s, names, subject, err := cfg.site()
	if err != nil {
		return InitResult{}, err
	}
	if _, err := archive.Settle(cfg.DataDir); err != nil {
		return InitResult{}, err
	}
	var o *old
	if cfg.Adopt.From != "" {
		if o, err = cfg.adopt(ctx, names); err != nil {
			return InitResult{}, err
		}
	}
	if Initialized(cfg.DataDir) {
		return InitResult{}, alreadyError(cfg.DataDir)
	}
	if err := cfg.place(ctx, o, s.Domain); err != nil {
		return InitResult{}, err
	}
	l := layout{cfg.DataDir}
	if err := l.create(); err != nil {
		return InitResult{}, err
	}
	release, err := records.Lock(l.state())
	if err != nil {
		return InitResult{}, err
	}
	defer release()
	if o != nil && o.archive != nil {
		if err := o.archive.unpack(l); err != nil {
			return InitResult{}, err
		}
	}
	result, err := l.fill(cfg, s, names, subject, o)
	if err == nil && o != nil && o.archive != nil {
		err = o.archive.done(l)
	}
	return result, err
}

func (cfg InitConfig) now() time.Time {
	if cfg.Now != nil {
		return cfg.Now()
	}
	return time.Now()
}

// fill writes the records, the site last: with it the directory is a registry. o is
// what is taken over, nil for none.
func (l layout) fill(cfg InitConfig, s site, names []certs.Name, subject pkix.Name, o *old) (InitResult, error) {
	now := cfg.now()
	if err := l.discardHalf(); err != nil {
		return InitResult{}, err
	}
	store, err := records.Open(l.records())
	if err != nil {
		return InitResult{}, err
	}
	keys, err := records.OpenKeys(l.keys())
	if err != nil {
		return InitResult{}, err
	}
	bundle, err := firstBundle(authority.Config{
		Records: store, Keys: keys, Names: names, Subject: subject,
		CALife:   orDefault(cfg.CALife, defaultCALife),
		LeafLife: orDefault(cfg.LeafLife, defaultLeafLife),
	}, o, now)
	if err != nil {
		return InitResult{}, err
	}
	fleetID, err := identity.Create(identity.Config{Records: store, Keys: keys, ControlLife: cfg.ControlLife}, now)
	if err != nil {
		return InitResult{}, err
	}
	result := InitResult{Domain: s.Domain, FleetID: fleetID, Fingerprint: bundle.Fingerprint(), User: cfg.User}
	if o != nil {
		if err := o.keep(l); err != nil {
			return InitResult{}, err
		}
		if result.Password, err = o.create(store, cfg); err != nil {
			return InitResult{}, err
		}
		s.Adopted, result.Adopted = now.UTC(), &o.result
	} else if cfg.User != "" {
		if result.Password, err = l.firstUser(store, cfg); err != nil {
			return InitResult{}, err
		}
	}
	if o == nil || o.pair == nil { // else certs/ is as it shall be
		if err := durable.WriteFile(l.caFile(), bundle.PEM(), 0o644); err != nil {
			return InitResult{}, err
		}
	}
	if _, err := store.Put(siteRecord, 0, s); err != nil {
		return InitResult{}, fmt.Errorf("init: %w", err)
	}
	return result, nil
}

// firstBundle makes the first CA, or takes the old pair over.
func firstBundle(cfg authority.Config, o *old, now time.Time) (certs.Bundle, error) {
	by := fmt.Sprintf("uid %d", os.Getuid())
	if o == nil || o.pair == nil {
		return authority.Create(cfg, now, by)
	}
	return authority.Adopt(cfg, o.pair.Adopted, o.pair.key, now, by)
}

// discardHalf removes what an Init that was cut off left: without a site record
// nobody has seen any of it.
func (l layout) discardHalf() error {
	for _, dir := range []string{l.records(), l.keys()} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("init: %w", err)
		}
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("init: %w", err)
		}
	}
	return nil
}

func checkFirstUser(cfg InitConfig) error {
	switch {
	case cfg.User == "":
		return nil
	case cfg.Password == "": // one is generated
		return users.CheckName(cfg.User)
	default:
		return users.Check(cfg.User, cfg.Password)
	}
}

// firstUser adds the first user and returns a generated password, if any.
func (l layout) firstUser(store *records.Store, cfg InitConfig) (generated string, err error) {
	u, err := users.Open(store, l.htpasswd())
	if err != nil {
		return "", err
	}
	password := cfg.Password
	if password == "" {
		generated = users.Generate()
		password = generated
	}
	_, err = u.Add(cfg.User, password)
	return generated, err
}

// parseSubject reads "C=DE,O=Example" as the scripts' CERTIFICATE_DETAILS had
// it; "/C=DE/O=Example" works too. A common name is passed over: it is ours.
func parseSubject(s string) (pkix.Name, error) {
	if strings.TrimSpace(s) == "" {
		return pkix.Name{Organization: []string{"trustcast"}}, nil
	}
	sep := ","
	if strings.HasPrefix(s, "/") {
		s, sep = s[1:], "/"
	}
	var name pkix.Name
	fields := map[string]*[]string{
		"C": &name.Country, "O": &name.Organization, "OU": &name.OrganizationalUnit,
		"L": &name.Locality, "ST": &name.Province, "STREET": &name.StreetAddress, "POSTALCODE": &name.PostalCode,
	}
	for part := range strings.SplitSeq(s, sep) {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		key, value = strings.ToUpper(strings.TrimSpace(key)), strings.TrimSpace(value)
		if key == "CN" {
			continue // trustcast sets it, since each CA needs a subject of its own
		}
		field, known := fields[key]
		switch {
		case !ok || value == "":
			return pkix.Name{}, fmt.Errorf("subject: %q is not KEY=VALUE: write for example C=DE,ST=Berlin,O=Example", part)
		case !known:
			return pkix.Name{}, fmt.Errorf("subject: %q is not known: use C, ST, L, O, OU, STREET or POSTALCODE", key)
		case key == "C" && len(value) != 2:
			return pkix.Name{}, errors.New("subject: C takes a country code of two letters, for example C=DE")
		case len(value) > 64:
			return pkix.Name{}, fmt.Errorf("subject: %s has %d characters; certificates allow 64", key, len(value))
		}
		*field = append(*field, value)
	}
	return name, nil
}
