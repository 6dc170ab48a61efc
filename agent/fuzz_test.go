package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/trustcast/trustcast/agent/install"
	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// The registry that fuzzed hosts have joined, and the time of all fuzzing.
const fuzzDomain = "registry.example.com:5000"

var fuzzTime = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// FuzzWanted reads what a server may send. Whatever is accepted is for the
// domain that was joined, of one or two CAs for it, and newer than what was
// there; and it can be kept and read again.
func FuzzWanted(f *testing.F) {
	good := &pb.Wanted{
		Revision: 3, Rotation: 1, Generation: 2, Bundle: [][]byte{fuzzCA(f, fuzzDomain), fuzzCA(f, fuzzDomain)}, Names: []string{fuzzDomain},
		Tick: durationpb.New(time.Minute), Window: durationpb.New(time.Second), RegistryAddress: "10.0.0.1:5000",
		Gossip: &pb.Gossip{Keys: [][]byte{make([]byte, 32)}, Peers: []string{"10.0.0.1:7946"}},
	}
	good.Leaves = []*pb.Leaf{{Name: "registry.example.com", Certificate: good.Bundle[0]}}
	if _, err := vet(good, fuzzDomain, "", fuzzTime); err != nil {
		f.Fatalf("a good offer is refused: %v", err)
	}
	for _, change := range []func(*pb.Wanted){
		func(*pb.Wanted) {},
		func(w *pb.Wanted) { w.Bundle = w.Bundle[:1] },
		func(w *pb.Wanted) { w.Bundle = append(w.Bundle, w.Bundle[0]) },
		func(w *pb.Wanted) { w.Bundle[0] = fuzzCA(f, "docker.io") },
		func(w *pb.Wanted) { w.Names[0] = "docker.io:5000" },
		func(w *pb.Wanted) { w.Names = append(w.Names, "../../etc:1") },
		func(w *pb.Wanted) {
			w.Names = append(w.Names, "alias.example.com")
			w.Bundle = [][]byte{fuzzCA(f, fuzzDomain, "alias.example.com")}
		},
		func(w *pb.Wanted) { w.Generation = 0 },
		func(w *pb.Wanted) { w.Generation = 1<<64 - 1 },
		func(w *pb.Wanted) { w.Leaves = []*pb.Leaf{{}} },
		func(w *pb.Wanted) {
			w.Tick, w.Window = &durationpb.Duration{Seconds: 1 << 62, Nanos: -5}, durationpb.New(-time.Hour)
		},
		func(w *pb.Wanted) { w.Gossip.Keys[0] = w.Gossip.Keys[0][1:] },
	} {
		w := proto.Clone(good).(*pb.Wanted)
		change(w)
		data, err := proto.Marshal(w)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, uint64(2), "")
	}
	f.Fuzz(func(t *testing.T, data []byte, have uint64, print string) {
		var w pb.Wanted
		if proto.Unmarshal(data, &w) != nil {
			return // gRPC refuses it
		}
		o, err := vet(&w, fuzzDomain, "", fuzzTime)
		if err != nil {
			return
		}
		checkOffered(t, o)
		checkDecision(t, Have{Generation: have, Fingerprint: certs.Fingerprint(print)}, o)
	})
}

func checkOffered(t *testing.T, o offered) {
	t.Helper()
	if o.names[0].String() != fuzzDomain || o.bundle.Generation == 0 || len(o.bundle.Roots) < 1 || len(o.bundle.Roots) > 2 {
		t.Errorf("accepted %d roots of generation %d for %s", len(o.bundle.Roots), o.bundle.Generation, o.names)
	}
	for _, n := range o.names {
		for _, dir := range n.Dirs() {
			if !filepath.IsLocal(dir) || filepath.Base(dir) != dir {
				t.Errorf("name %q is written to %q", n, dir)
			}
		}
	}
	for _, root := range o.bundle.Roots {
		if !root.PermittedDNSDomainsCritical || len(root.PermittedDNSDomains) == 0 || len(root.PermittedDNSDomains) > len(o.names) {
			t.Errorf("accepted a CA for %v", root.PermittedDNSDomains)
		}
	}
	if o.tick < minTick || o.tick > maxTick || o.window < 0 || o.window > maxWindow || len(o.leaves) > 2*maxNames || len(o.gossip.Keys) > maxKeys || len(o.gossip.Peers) > maxPeers {
		t.Errorf("out of bounds: %+v", o)
	}
	data, err := json.Marshal(o.trusted())
	if err != nil {
		t.Fatal(err)
	}
	var kept trusted
	if err := json.Unmarshal(data, &kept); err != nil {
		t.Fatal(err)
	}
	names, err := parseNames(fuzzDomain, kept.Names)
	b, bundleErr := kept.bundle()
	if err != nil || bundleErr != nil || len(names) < 1 || b.Fingerprint() != o.bundle.Fingerprint() || b.Generation != o.bundle.Generation {
		t.Errorf("what was accepted cannot be kept: %v, %v", err, bundleErr)
	}
}

// checkDecision: never back, and nothing else under the same generation.
func checkDecision(t *testing.T, have Have, o offered) {
	t.Helper()
	print := o.bundle.Fingerprint()
	d := Decide(have, &Offer{Generation: o.bundle.Generation, Fingerprint: print})
	switch {
	case o.bundle.Generation < have.Generation, o.bundle.Generation == have.Generation && print != have.Fingerprint:
		if d.Accept || d.Refused == "" {
			t.Errorf("had generation %d, accepted %d: %+v", have.Generation, o.bundle.Generation, d)
		}
	case d.Refused != "" || d.Accept != (o.bundle.Generation > have.Generation) || !d.Install:
		t.Errorf("had generation %d, offered %d: %+v", have.Generation, o.bundle.Generation, d)
	}
}

// FuzzState starts from arbitrary files. They are refused with the name of the
// file or its directory, or make a host whose names lead nowhere else.
func FuzzState(f *testing.F) {
	identity, trust := fuzzFiles(f)
	if _, err := enterWith(f, f.TempDir(), identity, trust, nil); err != nil {
		f.Fatalf("good files are refused: %v", err)
	}
	f.Add(identity, trust, []byte(`{"format":1,"files":[],"dirs":[]}`))
	f.Add(identity, []byte(`{}`), []byte(`{}`))
	f.Add([]byte(`{}`), trust, []byte(`null`))
	f.Add([]byte(`{"format":1,"domain":"../x"}`), trust, []byte(`[]`))
	f.Add(identity, []byte(`{"format":1,"generation":1,"roots":["AAAA"]}`), []byte(``))
	f.Add(identity, []byte(`{"format":1,"names":["..:1","a b"]}`), []byte(`{"format":2}`))
	f.Fuzz(func(t *testing.T, identity, trust, own []byte) {
		dir := t.TempDir()
		a, err := enterWith(t, dir, identity, trust, own)
		if err != nil {
			if !strings.Contains(err.Error(), dir) {
				t.Errorf("the error does not say which file: %v", err)
			}
			return
		}
		_, _ = a.enrolment.certificate() // good or not, without a panic
		for _, n := range a.names {
			if !filepath.IsLocal(n.String()) || filepath.Base(n.String()) != n.String() {
				t.Errorf("name %q", n)
			}
		}
		if b := a.bundle; b.Fingerprint() != certs.FingerprintOf(b.Roots...) || len(b.Roots) > 0 && len(a.names) == 0 {
			t.Errorf("bundle of %d roots for %v", len(b.Roots), a.names)
		}
	})
}

// enterWith is what a start does with the files that are there.
func enterWith(t testing.TB, dir string, identity, trust, own []byte) (*membership, error) {
	for name, data := range map[string][]byte{identityFile: identity, trustedFile: trust, ownedFile: own} {
		if len(data) == 0 {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if len(identity) == 0 {
		identity = []byte(" ") // without one it would ask for a token
		if err := os.WriteFile(filepath.Join(dir, identityFile), identity, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := &membership{
		cfg: Config{DataDir: dir}, store: store{dir: dir}, log: slog.New(slog.DiscardHandler),
		host: install.Host{Places: []install.Place{{Runtime: install.RuntimeDocker, Dir: filepath.Join(dir, "certs.d")}}},
	}
	return a, a.enter(t.Context())
}

func fuzzFiles(f *testing.F) (identity, trust []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		f.Fatal(err)
	}
	ca := fuzzCA(f, fuzzDomain)
	identity, err = json.Marshal(enrolment{
		Format: stateFormat, FleetID: "fleet", HostID: "host", Name: "web-1", Domain: fuzzDomain, Server: "10.0.0.1:7443",
		Cert: ca, Key: der, Received: fuzzTime, ControlCAs: [][]byte{ca}, Gossip: ring{Keys: [][]byte{make([]byte, 32)}, Peers: []string{"10.0.0.1:7946"}},
	})
	if err != nil {
		f.Fatal(err)
	}
	trust, err = json.Marshal(trusted{
		Format: stateFormat, Revision: 1, Generation: 1, Roots: [][]byte{ca}, Names: []string{fuzzDomain}, Tick: time.Minute, Registry: "10.0.0.1:5000",
	})
	if err != nil {
		f.Fatal(err)
	}
	return identity, trust
}

// fuzzCA makes a CA as the server does.
func fuzzCA(t testing.TB, all ...string) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	names, err := parseNames(all[0], all)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := certs.NewCA(certs.CATemplate{Number: 1, Names: names, NotBefore: fuzzTime.Add(-time.Hour), NotAfter: fuzzTime.AddDate(1, 0, 0)}, key)
	if err != nil {
		t.Fatal(err)
	}
	return ca.Cert.Raw
}
