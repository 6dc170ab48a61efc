package explore

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	mathrand "math/rand/v2"
	"testing"
	"time"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/internal/plain"
	"github.com/trustcast/trustcast/server/authority"
)

// certified are real certificates behind the numbers: CA n ends at hour n.
type certified struct {
	cas    map[ca]certs.CA
	leaves map[ca]*x509.Certificate
	links  map[authority.Link]*x509.Certificate
}

const registry = "registry.example.com"

// certify makes count of them; adopted: the first is a leaf that signed itself and is no
// CA, and signs no other.
func certify(t *testing.T, count ca, adopted bool) certified {
	t.Helper()
	c := certified{cas: map[ca]certs.CA{}, leaves: map[ca]*x509.Certificate{}, links: map[authority.Link]*x509.Certificate{}}
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := ca(1)
	if adopted {
		old, err := plain.SelfSigned(plain.Options{Now: now, Life: time.Hour}, registry)
		if err != nil {
			t.Fatal(err)
		}
		c.cas[1], c.leaves[1] = certs.CA{Cert: old.Leaf}, old.Leaf
		first = 2
	}
	for id := first; id <= count; id++ {
		made, err := certs.NewCA(certs.CATemplate{
			Subject: pkix.Name{CommonName: "registry"}, Number: uint64(id), Names: []certs.Name{{Host: registry, Port: certs.DefaultPort}},
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Duration(id) * time.Hour),
		}, newKey())
		if err != nil {
			t.Fatal(err)
		}
		c.cas[id] = made
		if c.leaves[id], err = made.SignLeaf(registry, newKey().Public(), now.Add(-time.Hour), now.Add(time.Duration(id)*time.Hour)); err != nil {
			t.Fatal(err)
		}
		for by := first; by < id; by++ {
			l := authority.Link{CA: authority.CAID(id), By: authority.CAID(by)}
			if c.links[l], err = c.cas[by].SignNext(made.Cert); err != nil {
				t.Fatal(err)
			}
		}
	}
	return c
}

// TestVerifiesIsX509: what this package takes for "this disk verifies what is
// served" agrees with crypto/x509, over random disks, chains and ends of CAs.
func TestVerifiesIsX509(t *testing.T) {
	t.Run("made here", func(t *testing.T) { verifiesIsX509(t, false) })
	t.Run("adopted", func(t *testing.T) { verifiesIsX509(t, true) })
}

func verifiesIsX509(t *testing.T, adopted bool) {
	const count, tries = 6, 10_000
	c := certify(t, count, adopted)
	var all []authority.Link
	for l := range c.links {
		all = append(all, l)
	}
	agreed, ends := map[bool]int{}, 0
	for range tries {
		// One has ended at most: of older ones, each link is over as well.
		ended := ca(mathrand.IntN(3)) //nolint:gosec // small
		w := world{ended: ended}
		issuer := ended + 1 + ca(mathrand.IntN(int(count-ended))) //nolint:gosec // small
		var chain []authority.Link
		served := []*x509.Certificate{c.leaves[issuer]}
		for _, i := range mathrand.Perm(len(all))[:mathrand.IntN(6)] {
			chain = append(chain, all[i])
			served = append(served, c.links[all[i]])
		}
		var disk roots
		var trusted []*x509.Certificate
		for _, i := range mathrand.Perm(count)[:mathrand.IntN(3)] {
			disk.add(ca(i + 1))                            //nolint:gosec // small
			trusted = append(trusted, c.cas[ca(i+1)].Cert) //nolint:gosec // small
		}
		at := now.Add(time.Duration(ended)*time.Hour + time.Minute)
		real := certs.VerifyServed(served, trusted, registry, at) == nil
		usable := func(l authority.Link) bool { return !w.over(l) }
		if pure := verifies(disk, issuer, chain, usable); pure != real {
			t.Fatalf("disk %v, CA %d serves with %v, ended %d: pure %v, crypto/x509 %v", disk, issuer, chain, ended, pure, real)
		}
		if !real && verifies(disk, issuer, chain, nil) {
			ends++
		}
		agreed[real]++
	}
	if agreed[true] < tries/20 || agreed[false] < tries/20 || ends < tries/200 {
		t.Errorf("the cases were one-sided: %v, %d for the end of a link alone", agreed, ends)
	}
}
