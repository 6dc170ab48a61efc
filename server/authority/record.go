package authority

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/records"
)

// recordName is the one record of this package.
const recordName = "authority"

// maxHistory bounds the kept history; a yearly rotation and monthly leaves make
// about 20 entries a year.
const maxHistory = 500

// record is what survives: the rotation and the certificates behind its
// numbers. Keys are in files of their own, named here by hash.
type record struct {
	Rotation Rotation     `json:"rotation"`
	CAs      []caRecord   `json:"cas"`
	Links    []linkRecord `json:"links"`
	Leaves   []leafRecord `json:"leaves"`
	History  []Entry      `json:"history"`
}

type caRecord struct {
	ID   CAID   `json:"id"`
	Cert []byte `json:"cert"`
	// Key is empty when only the certificate is left, in the bundle, and always
	// for the adopted one.
	Key records.KeyID `json:"key,omitempty"`
	// Adopted is when it was taken over with the registry; zero: made here.
	Adopted time.Time `json:"adopted,omitzero"`
}

type linkRecord struct {
	Link
	Cert []byte `json:"cert"`
	// Ends is the certificate's end.
	Ends time.Time `json:"ends"`
}

type leafRecord struct {
	CA   CAID          `json:"ca"`
	Host string        `json:"host"`
	Cert []byte        `json:"cert"`
	Key  records.KeyID `json:"key"`
	// Made is when it was signed, or taken over; NotBefore is back-dated.
	Made time.Time `json:"made"`
	// Chain was served beside an adopted leaf and goes on being served.
	Chain [][]byte `json:"chain,omitempty"`
}

// Entry is one line of the history.
type Entry struct {
	Time       time.Time `json:"time"`
	Rotation   uint64    `json:"rotation"`
	Generation uint64    `json:"generation"`
	// Event is "created", "adopted", "rotate", "replace", "compromise", "switch", "retire",
	// "done", "rollback", "skip", "deadline", "leaf", "prune", "uncover",
	// "restore", "open" or "gossip".
	Event string `json:"event"`
	// By is the operator ("uid 0"), "age", "evidence", "deadline" or "end of the
	// CA".
	By     string `json:"by"`
	Detail string `json:"detail,omitempty"`
	// WaitedFor are the hosts that a step waited for last.
	WaitedFor []string `json:"waited_for,omitempty"`
}

// note appends to the history, dropping the oldest beyond the bound. Rotation and
// generation are the record's.
func (rec *record) note(e Entry) {
	e.Time, e.Rotation, e.Generation = e.Time.UTC(), rec.Rotation.Number, rec.Rotation.Generation
	rec.History = slices.Clone(rec.History)
	if last := len(rec.History) - 1; e.Event == "restore" && last >= 0 && rec.History[last].Event == e.Event {
		rec.History = rec.History[:last] // one restore, however often its generation was raised
	}
	rec.History = append(rec.History, e)
	if over := len(rec.History) - maxHistory; over > 0 {
		rec.History = rec.History[over:]
	}
}

// trim drops what the rotation no longer names. Of a CA that is left in the bundle
// alone, only the certificate stays.
func (rec *record) trim() {
	r := rec.Rotation
	live := func(id CAID) bool { return id == r.Active || id == r.Other && id != 0 }
	rec.Links = slices.DeleteFunc(slices.Clone(rec.Links), func(l linkRecord) bool {
		return !slices.Contains(r.Chain, l.Link) && !slices.Contains(r.OtherChain, l.Link)
	})
	rec.Leaves = slices.DeleteFunc(slices.Clone(rec.Leaves), func(l leafRecord) bool { return !live(l.CA) })
	rec.CAs = slices.DeleteFunc(slices.Clone(rec.CAs), func(ca caRecord) bool {
		return !live(ca.ID) && !slices.Contains(r.Bundle, ca.ID)
	})
	for i := range rec.CAs {
		if !live(rec.CAs[i].ID) {
			rec.CAs[i].Key = ""
		}
	}
}

// keys returns every key that the record names.
func (rec record) keys() []records.KeyID {
	var ids []records.KeyID
	for _, ca := range rec.CAs {
		if ca.Key != "" {
			ids = append(ids, ca.Key)
		}
	}
	for _, l := range rec.Leaves {
		ids = append(ids, l.Key)
	}
	return ids
}

func (rec record) ca(id CAID) (caRecord, error) {
	for _, ca := range rec.CAs {
		if ca.ID == id {
			return ca, nil
		}
	}
	return caRecord{}, fmt.Errorf("the record has no certificate of CA %d: restore it from a backup", id)
}

// cert returns the certificate of a CA that the record holds.
func (rec record) cert(id CAID) (*x509.Certificate, error) {
	ca, err := rec.ca(id)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(ca.Cert)
}

// bundle returns the certificates that hosts should have.
func (rec record) bundle() (certs.Bundle, error) {
	b := certs.Bundle{Generation: rec.Rotation.Generation}
	for _, id := range rec.Rotation.Bundle {
		cert, err := rec.cert(id)
		if err != nil {
			return certs.Bundle{}, err
		}
		b.Roots = append(b.Roots, cert)
	}
	return b, nil
}

// chain returns the predecessors' certificates in order.
func (rec record) chain(links []Link) ([][]byte, error) {
	var out [][]byte
	for _, want := range links {
		i := slices.IndexFunc(rec.Links, func(l linkRecord) bool { return l.Link == want })
		if i < 0 {
			return nil, fmt.Errorf("the record has no predecessor %d signed by %d: restore it from a backup", want.CA, want.By)
		}
		out = append(out, rec.Links[i].Cert)
	}
	return out, nil
}

// pairs returns what an edge serves under a CA: for each host name its leaf,
// predecessors and key.
func (rec record) pairs(keys *records.Keys, id CAID, links []Link) (map[string]*tls.Certificate, error) {
	if id == 0 {
		return nil, nil
	}
	chain, err := rec.chain(links)
	if err != nil {
		return nil, err
	}
	pairs := map[string]*tls.Certificate{}
	for _, l := range rec.Leaves {
		if l.CA != id {
			continue
		}
		key, err := keys.Signer(l.Key)
		if err != nil {
			return nil, err
		}
		leaf, err := x509.ParseCertificate(l.Cert)
		if err != nil {
			return nil, fmt.Errorf("leaf for %s: %w", l.Host, err)
		}
		pairs[l.Host] = &tls.Certificate{
			Certificate: slices.Concat([][]byte{l.Cert}, l.Chain, chain),
			PrivateKey:  key,
			Leaf:        leaf,
		}
	}
	return pairs, nil
}

// maker makes certificates: what a new CA and its leaves look like.
type maker struct {
	keys             *records.Keys
	names            []certs.Name
	subject          pkix.Name
	caLife, leafLife time.Duration
}

// newLeaves makes a leaf for each host name under ca.
func (m maker) newLeaves(id CAID, ca certs.CA, now time.Time) ([]leafRecord, error) {
	made, err := m.keys.NewSome(len(m.hosts()))
	if err != nil {
		return nil, err
	}
	return m.leavesOf(id, ca, made, now)
}

// newCA makes CA number id and its leaves, with keys that are durable already: they
// reach the disk together.
func (m maker) newCA(id CAID, now time.Time) (caRecord, certs.CA, []leafRecord, error) {
	made, err := m.keys.NewSome(1 + len(m.hosts()))
	if err != nil {
		return caRecord{}, certs.CA{}, nil, err
	}
	rec, ca, err := m.caOf(id, made[0], now)
	if err != nil {
		return caRecord{}, certs.CA{}, nil, err
	}
	leaves, err := m.leavesOf(id, ca, made[1:], now)
	return rec, ca, leaves, err
}

// hosts are the names without ports: aliases may differ by port only.
func (m maker) hosts() []string {
	var hosts []string
	for _, name := range m.names {
		if !slices.Contains(hosts, name.Host) {
			hosts = append(hosts, name.Host)
		}
	}
	return hosts
}

func (m maker) caOf(id CAID, made records.Made, now time.Time) (caRecord, certs.CA, error) {
	ca, err := certs.NewCA(certs.CATemplate{
		Subject:   m.subject,
		Number:    uint64(id),
		Names:     m.names,
		NotBefore: now.Add(-certs.CABackdate),
		NotAfter:  now.Add(m.caLife),
	}, made.Key)
	if err != nil {
		return caRecord{}, certs.CA{}, err
	}
	return caRecord{ID: id, Cert: ca.Cert.Raw, Key: made.ID}, ca, nil
}

// leavesOf signs a leaf for each of hosts, with the keys in their order.
func (m maker) leavesOf(id CAID, ca certs.CA, made []records.Made, now time.Time) ([]leafRecord, error) {
	var leaves []leafRecord
	for i, host := range m.hosts() {
		leaf, err := ca.SignLeaf(m.leafHost(host), made[i].Key.Public(), now.Add(-certs.LeafBackdate), now.Add(m.leafLife))
		if err != nil {
			return nil, err
		}
		leaves = append(leaves, leafRecord{CA: id, Host: host, Cert: leaf.Raw, Key: made[i].ID, Made: now})
	}
	return leaves, nil
}

// signer loads a CA with its key.
func (rec record) signer(keys *records.Keys, id CAID) (certs.CA, error) {
	ca, err := rec.ca(id)
	if err != nil {
		return certs.CA{}, err
	}
	cert, err := x509.ParseCertificate(ca.Cert)
	if err != nil {
		return certs.CA{}, fmt.Errorf("CA %d: %w", id, err)
	}
	var key *ecdsa.PrivateKey
	if key, err = keys.Load(ca.Key); err != nil {
		return certs.CA{}, err
	}
	return certs.CA{Cert: cert, Key: key}, nil
}
