package security

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/trustcast/trustcast/certs"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// TestTokensThatAreNoGood: each is refused with a reason, and makes no host.
func TestTokensThatAreNoGood(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.rawHost("taken")
	good := w.token(&pb.CreateTokenRequest{})
	used := w.token(&pb.CreateTokenRequest{Uses: 1})
	w.enrolNew(used, "first")
	revoked := w.token(&pb.CreateTokenRequest{})
	revokedID := tokenID(t, revoked)
	w.must(func(ctx context.Context, c pb.AdminServiceClient) error {
		_, err := c.RemoveToken(ctx, &pb.RemoveTokenRequest{Id: revokedID})
		return err
	})
	short := w.token(&pb.CreateTokenRequest{Expires: durationpb.New(time.Nanosecond)})

	csr := newCSR(t, newKey(t), "")
	type change = func(*pb.EnrollRequest)
	secret := func(s []byte) change { return func(r *pb.EnrollRequest) { r.TokenSecret = s } }
	id := func(id string) change { return func(r *pb.EnrollRequest) { r.TokenId = id } }
	name := func(name string) change { return func(r *pb.EnrollRequest) { r.Name = name } }
	request := func(csr []byte) change { return func(r *pb.EnrollRequest) { r.Csr = csr } }
	parsed, err := certs.ParseToken(good)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		token  string
		change change
		code   codes.Code
		says   string
	}{
		{"expired", short, name("x"), codes.PermissionDenied, "expired"},
		{"used up", used, name("x"), codes.PermissionDenied, "used up (1 of 1)"},
		{"revoked", revoked, name("x"), codes.PermissionDenied, "revoked"},
		{"wrong secret", good, secret(make([]byte, 24)), codes.PermissionDenied, "not known here"},
		{"no secret", good, secret(nil), codes.PermissionDenied, "not known here"},
		{"half a secret", good, secret(parsed.Secret[:12]), codes.PermissionDenied, "not known here"},
		{"the kept hash for a secret", good, secret([]byte(certs.SecretHash(parsed.Secret))), codes.PermissionDenied, "not known here"},
		{"unknown ID", good, id("000000000000"), codes.PermissionDenied, "not known here"},
		{"no ID", good, id(""), codes.PermissionDenied, "not known here"},
		{"an ID that leads to a host", good, id("../hosts/" + w.host("taken").GetId()), codes.PermissionDenied, "not known here"},
		{"an ID that leads to the control CA", good, id("../control"), codes.PermissionDenied, "not known here"},
		{"an ID that leads out", good, id("../../../../../../etc/passwd"), codes.PermissionDenied, "not known here"},
		{"another token's ID", good, id(tokenID(t, used)), codes.PermissionDenied, "not known here"},

		{"taken name", good, name("taken"), codes.AlreadyExists, "--host taken"},
		{"no name", good, name(""), codes.InvalidArgument, "1 to 63"},
		{"long name", good, name(strings.Repeat("a", 64)), codes.InvalidArgument, "1 to 63"},
		{"upper case", good, name("Web-1"), codes.InvalidArgument, "1 to 63"},
		{"a path", good, name("../../etc"), codes.InvalidArgument, "1 to 63"},
		{"a space", good, name("web 1"), codes.InvalidArgument, "1 to 63"},
		{"a line break", good, name("web-1\n"), codes.InvalidArgument, "1 to 63"},
		{"a terminal's escape", good, name("\x1b[31mweb"), codes.InvalidArgument, "1 to 63"},
		{"a zero byte", good, name("web\x00"), codes.InvalidArgument, "1 to 63"},
		{"Cyrillic that looks like Latin", good, name("wеb"), codes.InvalidArgument, "1 to 63"},
		{"written from right to left", good, name("\u202ebew"), codes.InvalidArgument, "1 to 63"},
		{"full-width digits", good, name("web-１"), codes.InvalidArgument, "1 to 63"},

		{"no CSR", good, request(nil), codes.InvalidArgument, "does not parse"},
		{"a CSR that is none", good, request([]byte("hello")), codes.InvalidArgument, "does not parse"},
		{"a CSR signed by another key", good, request(swapped(t, csr)), codes.InvalidArgument, "not signed"},
		{"an RSA key", good, request(newCSR(t, rsaKey(t), "")), codes.InvalidArgument, "P-256"},
		{"a P-384 key", good, request(newCSR(t, p384Key(t), "")), codes.InvalidArgument, "P-256"},
		{"a huge CSR", good, request(newCSR(t, newKey(t), strings.Repeat("a", 9<<10))), codes.InvalidArgument, "at most"},
		{"a message too big", good, request(make([]byte, 65<<10)), codes.ResourceExhausted, "larger than max"},
	}
	before, records := hostNames(w.status()), w.recordFiles()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := w.enrol(test.token, func(r *pb.EnrollRequest) {
				r.Name, r.Csr = "x", csr
				test.change(r)
			})
			if got := status.Code(err); got != test.code || !strings.Contains(status.Convert(err).Message(), test.says) {
				t.Errorf("%v %q, want %v and %q", got, status.Convert(err).Message(), test.code, test.says)
			}
			if err != nil && strings.Contains(err.Error(), test.token) {
				t.Error("the error repeats the token")
			}
		})
	}
	if after := hostNames(w.status()); !slices.Equal(before, after) {
		t.Errorf("hosts %v became %v", before, after)
	}
	if h := w.enrolNew(good, "x"); h == "" { // the twin: the same token and name, honestly
		t.Error("the good token does not work")
	}
	if after := w.recordFiles(); !slices.Equal(records, after) {
		t.Errorf("records %v became %v", records, after)
	}
}

// recordFiles are the records that are not one a host or token.
func (w *world) recordFiles() (names []string) {
	w.t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.cfg.DataDir, "state", "records"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestEnrollIsIdempotent by token and key; everything else that differs does not
// make a second host, nor change the first.
func TestEnrollIsIdempotent(t *testing.T) {
	t.Parallel()
	w := start(t)
	token, key := w.token(&pb.CreateTokenRequest{Uses: 1}), newKey(t)
	again := func(name, commonName string) string {
		r, err := w.enrol(token, func(r *pb.EnrollRequest) { r.Name, r.Csr = name, newCSR(t, key, commonName) })
		if err != nil {
			t.Fatal(err)
		}
		cert := parse(t, r.GetIdentity())
		if cert.Subject.CommonName != "web" || len(cert.URIs) != 1 || cert.URIs[0].Path != "/host/"+r.GetHostId() {
			t.Errorf("the identity is for %s %v", cert.Subject, cert.URIs)
		}
		return r.GetHostId()
	}
	first := again("web", "")
	for _, other := range []string{"web", "other"} {
		if got := again(other, "server"); got != first {
			t.Errorf("repeated as %s: host %s, want %s", other, got, first)
		}
	}
	if got := hostNames(w.status()); !slices.Equal(got, []string{"web"}) {
		t.Errorf("hosts are %v", got)
	}
	r, err := w.enrol(token, func(r *pb.EnrollRequest) { r.Name, r.Csr = "web", newCSR(t, key, "") })
	if err != nil {
		t.Fatal(err)
	}
	h := &rawHost{w: w, pair: pair{key: key, cert: parse(t, r.GetIdentity())}}
	h.pair = h.renew()
	h.renew() // the first key is no longer the host's
	_, err = w.enrol(token, func(r *pb.EnrollRequest) { r.Name, r.Csr = "web", newCSR(t, key, "") })
	if got := status.Code(err); got != codes.PermissionDenied {
		t.Errorf("a replaced key was good for another enrolment: %v", err)
	}
	w.remove("web")
	_, err = w.enrol(token, func(r *pb.EnrollRequest) { r.Name, r.Csr = "web", newCSR(t, key, "") })
	if got := status.Code(err); got != codes.PermissionDenied {
		t.Errorf("a removed host came back with its old token: %v", err)
	}
}

// TestTokenForAName makes that host and no other, and ends the one before.
func TestTokenForAName(t *testing.T) {
	t.Parallel()
	w := start(t)
	before := w.rawHost("web")
	token := w.token(&pb.CreateTokenRequest{Host: "web", Uses: 100})
	if id := w.enrolNew(token, "db"); id != w.host("web").GetId() || id == before.id || w.host("db") != nil {
		t.Errorf("a token for web made host %s; hosts are %v", id, hostNames(w.status()))
	}
	_, err := w.agentService(&before.pair).Renew(call(t), &pb.RenewRequest{Csr: newCSR(t, newKey(t), "")})
	if got := status.Code(err); got != codes.PermissionDenied {
		t.Errorf("the host that was replaced got %v, want %v", got, codes.PermissionDenied)
	}
	_, err = w.enrol(token, func(r *pb.EnrollRequest) { r.Name, r.Csr = "web", newCSR(t, newKey(t), "") })
	if got := status.Code(err); got != codes.PermissionDenied {
		t.Errorf("a token for a name was good twice: %v", err)
	}
}

// TestNameLikeAnID: a host cannot be removed in place of another whose ID it
// took for its name.
func TestNameLikeAnID(t *testing.T) {
	t.Parallel()
	w := start(t)
	victim := w.rawHost("victim")
	decoy := w.rawHost(victim.id)
	w.remove(victim.id)
	if got := hostNames(w.status()); !slices.Equal(got, []string{decoy.name}) {
		t.Errorf("removing an ID left %v", got)
	}
}

// TestParallelEnrolments: a token for five hosts makes five, however many ask.
func TestParallelEnrolments(t *testing.T) {
	t.Parallel()
	w := start(t)
	token := w.token(&pb.CreateTokenRequest{Uses: 5})
	var made, refused atomic.Int32
	var g errgroup.Group
	for i := range 20 {
		csr := newCSR(t, newKey(t), "")
		g.Go(func() error {
			_, err := w.enrol(token, func(r *pb.EnrollRequest) { r.Name, r.Csr = "host-"+string(rune('a'+i)), csr })
			switch status.Code(err) {
			case codes.OK:
				made.Add(1)
				return nil
			case codes.PermissionDenied:
				refused.Add(1)
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if hosts := len(w.status().GetHosts()); made.Load() != 5 || refused.Load() != 15 || hosts != 5 {
		t.Errorf("%d were let in and %d refused, there are %d hosts", made.Load(), refused.Load(), hosts)
	}
}

// enrolNew makes a host with a new key and returns its ID.
func (w *world) enrolNew(token, name string) string {
	w.t.Helper()
	r, err := w.enrol(token, func(r *pb.EnrollRequest) { r.Name, r.Csr = name, newCSR(w.t, newKey(w.t), "") })
	if err != nil {
		w.t.Fatal(err)
	}
	return r.GetHostId()
}

func hostNames(s *pb.Status) (names []string) {
	for _, h := range s.GetHosts() {
		names = append(names, h.GetName())
	}
	return names
}

func tokenID(t *testing.T, token string) string {
	t.Helper()
	parsed, err := certs.ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.ID
}

// swapped breaks a CSR's signature: its last byte.
func swapped(t *testing.T, csr []byte) []byte {
	t.Helper()
	bad := slices.Clone(csr)
	bad[len(bad)-1] ^= 1
	return bad
}

func rsaKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func p384Key(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
