package server

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/trustcast/trustcast/certs"
	"github.com/trustcast/trustcast/server/authority"
	"github.com/trustcast/trustcast/server/records"
)

// unsavedFor is how old a CA without any backup may be before the log says so: a
// registry that is being tried out needs none.
const unsavedFor = day

// newestBackup returns what is recorded of it; zero when there never was one.
func (n *node) newestBackup() (backupMade, error) {
	var b backupMade
	_, err := n.store.Get(backupRecord, &b)
	if errors.Is(err, records.ErrNotFound) {
		err = nil
	}
	return b, err
}

// backupStatus says when the newest backup was made, and what it lacks.
func (n *node) backupStatus(state authority.State) (made *timestamppb.Timestamp, lacks string, err error) {
	b, err := n.newestBackup()
	if err != nil {
		return nil, "", err
	}
	return timeOrNil(b.Made), b.lacks(state), nil
}

// lacks says what a backup does not have although it should; "" for nothing.
func (b backupMade) lacks(state authority.State) string {
	return b.lacking(func() bool { return b.has(state) })
}

// lacking is lacks for who knows whether the backup has the active CA.
func (b backupMade) lacking(has func() bool) string {
	switch {
	case b.Made.IsZero():
		return "there is no backup: the CA's key exists only here; make one with `trustcast backup FILE`"
	case !has():
		return fmt.Sprintf("the newest backup (%s) is older than the active CA and does not have its key: make another with `trustcast backup FILE`", b.Made.Format("2006-01-02 15:04 MST"))
	}
	return ""
}

// has: the key of the active CA is in the backup.
func (b backupMade) has(state authority.State) bool {
	for _, c := range state.Certificates {
		if c.Role == "active" {
			return slices.Contains(b.CAs, certs.FingerprintOf(c.Cert))
		}
	}
	return false
}

// warnOfBackup logs once what the newest backup lacks.
func (n *node) warnOfBackup(said *string) {
	state, err := n.authority.State()
	if err != nil {
		return // warn has said it
	}
	b, err := n.newestBackup()
	if err != nil {
		n.log.Error("the record of the newest backup is not read", "err", err)
		return
	}
	lacks := b.lacks(state)
	if b.Made.IsZero() && time.Since(state.Issuer.NotBefore.Add(certs.CABackdate)) < unsavedFor {
		return
	}
	if lacks != *said && lacks != "" {
		n.log.Warn(lacks)
	}
	*said = lacks
}

// registerBackup adds the newest backup to the metrics.
func (n *node) registerBackup() {
	n.metrics.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "trustcast_backup_timestamp_seconds", Help: "When the newest backup was made, in Unix seconds; 0: never.",
		}, func() float64 {
			b, err := n.newestBackup()
			if err != nil || b.Made.IsZero() {
				return 0 // status says what is wrong
			}
			return float64(b.Made.Unix())
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "trustcast_backup_has_active_ca", Help: "1 while the newest backup has the key of the active registry CA.",
		}, func() float64 {
			state, err := n.authority.State()
			b, bad := n.newestBackup()
			if err != nil || bad != nil || !b.has(state) {
				return 0
			}
			return 1
		}))
}
