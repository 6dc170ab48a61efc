package security

import (
	"testing"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// TestEnrolledAnewIsNotCovered: a machine that enrols again may have lost what it
// had; the promises cover it from its next complete evidence on.
func TestEnrolledAnewIsNotCovered(t *testing.T) {
	t.Parallel()
	w := start(t)
	h := &rawHost{w: w, name: "raw", pair: pair{key: newKey(t)}}
	token := w.token(&pb.CreateTokenRequest{})
	enrol := func() {
		t.Helper()
		r, err := w.enrol(token, func(req *pb.EnrollRequest) { req.Csr = newCSR(t, h.key, "") })
		if err != nil {
			t.Fatal(err)
		}
		h.id, h.cert = r.GetHostId(), parse(t, r.GetIdentity())
	}
	cover := func() {
		t.Helper()
		s := w.sync(&h.pair)
		s.report(&pb.Report{})
		s.report(complete(t, s.wanted()))
		until(t, "it is covered", func() bool { return w.host("raw").GetCovered() })
		s.cancel()
		until(t, "its stream is over", func() bool { return !w.host("raw").GetConnected() })
	}
	enrol()
	first := h.id
	cover()
	enrol()
	if h.id != first {
		t.Fatal("the same key is another host now: nothing is tested")
	}
	if w.host("raw").GetCovered() {
		t.Error("it is covered although nobody knows what it has")
	}
	cover() // the twin
}
