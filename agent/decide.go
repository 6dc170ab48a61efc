package agent

import (
	"fmt"

	"github.com/trustcast/trustcast/certs"
)

// Have is what a host has: what it accepted last, and what is on its disk.
type Have struct {
	// Generation and Fingerprint of the bundle accepted last; before the first
	// the fingerprint is "". Generation 0 is that of an adopted registry.
	Generation  uint64
	Fingerprint certs.Fingerprint
	// OnDisk is the fingerprint that every file has, as re-read; "" when one
	// is missing, differs or cannot be read.
	OnDisk certs.Fingerprint
}

// Offer is a vetted bundle that the server wants here.
type Offer struct {
	Generation  uint64
	Fingerprint certs.Fingerprint
}

// Decision is what to do about it.
type Decision struct {
	// Refused says why the offer is not accepted; "" when it is, or when there
	// is none.
	Refused string
	// Accept: keep the offer durably as what this host trusts.
	Accept bool
	// Install: write the accepted bundle to disk.
	Install bool
}

// Decide is the agent's whole mind: is what I have what is wanted? If not,
// accept and install it. An older generation, or another bundle under the same
// generation, is refused whoever offers it; only a new enrolment resets this.
// Without an offer the accepted bundle is what is wanted.
func Decide(have Have, offer *Offer) Decision {
	var d Decision
	want := have.Fingerprint
	if offer != nil {
		first := have.Generation == 0 && have.Fingerprint == ""
		switch {
		case offer.Generation < have.Generation:
			d.Refused = fmt.Sprintf("refused generation %d: this host has accepted generation %d already; if the server was restored from a backup, see its status", offer.Generation, have.Generation)
		case offer.Generation == have.Generation && !first && offer.Fingerprint != have.Fingerprint:
			d.Refused = fmt.Sprintf("refused another bundle under generation %d: two servers use the same fleet", offer.Generation)
		default:
			d.Accept = offer.Generation > have.Generation || first
			want = offer.Fingerprint
		}
	}
	d.Install = want != "" && have.OnDisk != want
	return d
}
