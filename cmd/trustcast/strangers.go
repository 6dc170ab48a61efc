package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// maxStrangers is how many lines people read; -o json has all.
const maxStrangers = 20

// strangerJSON is an address that uses the registry and belongs to no host.
type strangerJSON struct {
	// Address is without a port.
	Address string `json:"address"`
	// LastSeen is its last request.
	LastSeen *time.Time `json:"last_seen"`
	// Requests counts those of signed-in users.
	Requests uint64 `json:"requests"`
	// Refusals counts handshakes that ended because the CA is unknown there.
	Refusals uint64 `json:"refusals"`
}

func newStrangersJSON(strangers []*pb.Stranger) []strangerJSON {
	out := []strangerJSON{}
	for _, s := range strangers {
		out = append(out, strangerJSON{s.GetAddress(), instant(s.GetLastSeen()), s.GetRequests(), s.GetRefusals()})
	}
	return out
}

// printStrangers lists them after an empty line, with what to do; nothing when
// there are none.
func printStrangers(w io.Writer, strangers []*pb.Stranger, now *timestamppb.Timestamp) error {
	if len(strangers) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	rows := []string{row("STRANGER", "LAST SEEN", "REQUESTS", "REFUSALS")}
	for _, s := range strangers[:min(len(strangers), maxStrangers)] {
		rows = append(rows, row(s.GetAddress(), ago(s.GetLastSeen(), now),
			strconv.FormatUint(s.GetRequests(), 10), strconv.FormatUint(s.GetRefusals(), 10)))
	}
	if err := table(w, rows...); err != nil {
		return err
	}
	if more := len(strangers) - maxStrangers; more > 0 {
		if _, err := fmt.Fprintf(w, "… and %d more; 'trustcast status -o json' has all.\n", more); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, "Strangers use the registry, or refuse its certificate, and no host of the fleet has their address: a rotation may break them.\n"+
		"Install the agent there: 'trustcast token create' prints the line. What can run no agent needs 'trustcast ca export' by hand.")
	return err
}
