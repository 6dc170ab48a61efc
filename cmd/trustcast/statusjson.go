package main

import (
	"time"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// statusJSON is `status -o json`. Keys are stable; lists are never null; times
// are RFC 3339 in UTC, null when unset.
type statusJSON struct {
	Version         string         `json:"version"`
	Time            *time.Time     `json:"time"`
	Started         *time.Time     `json:"started"`
	FleetID         string         `json:"fleet_id"`
	Domain          string         `json:"domain"`
	Aliases         []string       `json:"aliases"`
	Generation      uint64         `json:"generation"`
	Fingerprint     string         `json:"fingerprint"`
	Serving         servingJSON    `json:"serving"`
	Rotation        rotationJSON   `json:"rotation"`
	Hosts           []hostJSON     `json:"hosts"`
	Strangers       []strangerJSON `json:"strangers"`
	Warnings        []string       `json:"warnings"`
	RegistryAddress string         `json:"registry_address"`
	GRPCAddress     string         `json:"grpc_address"`
	GossipAddress   string         `json:"gossip_address"`
	GossipRing      ringJSON       `json:"gossip_ring"`
	// Paused is why automatic actions pause, else empty.
	Paused string     `json:"paused"`
	Backup backupJSON `json:"backup"`
}

// backupJSON is about the newest backup; Made is null when there never was one.
type backupJSON struct {
	Made *time.Time `json:"made"`
	// Lacks is what it does not have, else empty.
	Lacks string `json:"lacks"`
}

type ringJSON struct {
	Version    uint64   `json:"version"`
	Step       string   `json:"step"`
	WaitingFor []string `json:"waiting_for"`
}

type servingJSON struct {
	Issuer            string     `json:"issuer"`
	IssuerFingerprint string     `json:"issuer_fingerprint"`
	CANotAfter        *time.Time `json:"ca_not_after"`
	LeafNotAfter      *time.Time `json:"leaf_not_after"`
	Predecessors      int32      `json:"predecessors"`
}

type rotationJSON struct {
	Phase      string        `json:"phase"`
	Number     uint64        `json:"number"`
	Rollback   bool          `json:"rollback"`
	Started    *time.Time    `json:"started"`
	Deadline   *time.Time    `json:"deadline"`
	WaitingFor []waitingJSON `json:"waiting_for"`
	Skipped    []string      `json:"skipped"`
	Other      string        `json:"other"`
	// Mode is "planned" or "compromised"; Frozen says why nothing happens.
	Mode   string `json:"mode"`
	Frozen string `json:"frozen"`
}

type waitingJSON struct {
	Host   string `json:"host"`
	Reason string `json:"reason"`
	Advice string `json:"advice"`
}

type hostJSON struct {
	ID               string     `json:"id"`
	Name             string     `json:"name"`
	State            string     `json:"state"`
	Generation       uint64     `json:"generation"`
	Fingerprint      string     `json:"fingerprint"`
	LastSeen         *time.Time `json:"last_seen"`
	Covered          bool       `json:"covered"`
	Present          bool       `json:"present"`
	Connected        bool       `json:"connected"`
	Gossip           string     `json:"gossip"`
	Problem          string     `json:"problem"`
	Version          string     `json:"version"`
	Address          string     `json:"address"`
	IdentityNotAfter *time.Time `json:"identity_not_after"`
	Enrolled         *time.Time `json:"enrolled"`
	Live             string     `json:"live"`
	Probe            string     `json:"probe"`
	// ClockSkew is the host's clock minus the server's, in seconds.
	ClockSkew float64 `json:"clock_skew_seconds"`
}

func newStatusJSON(s *pb.Status) statusJSON {
	serving := s.GetServing()
	return statusJSON{
		Version: s.GetVersion(), Time: instant(s.GetTime()), Started: instant(s.GetStarted()),
		FleetID: s.GetFleetId(), Domain: s.GetDomain(), Aliases: list(s.GetAliases()),
		Generation: s.GetGeneration(), Fingerprint: s.GetFingerprint(),
		Serving: servingJSON{
			Issuer: serving.GetIssuer(), IssuerFingerprint: serving.GetIssuerFingerprint(),
			CANotAfter: instant(serving.GetCaNotAfter()), LeafNotAfter: instant(serving.GetLeafNotAfter()),
			Predecessors: serving.GetPredecessors(),
		},
		Rotation: newRotationJSON(s.GetRotation()), Hosts: newHostsJSON(s.GetHosts()),
		Strangers: newStrangersJSON(s.GetStrangers()), Warnings: list(s.GetWarnings()),
		RegistryAddress: s.GetRegistryAddress(), GRPCAddress: s.GetGrpcAddress(), GossipAddress: s.GetGossipAddress(),
		GossipRing: ringJSON{s.GetGossipRing().GetVersion(), s.GetGossipRing().GetStep(), list(s.GetGossipRing().GetWaitingFor())},
		Paused:     s.GetPaused(),
		Backup:     backupJSON{instant(s.GetBackedUp()), s.GetBackupLacks()},
	}
}

func newRotationJSON(r *pb.Rotation) rotationJSON {
	waits := []waitingJSON{}
	for _, w := range r.GetWaitingFor() {
		waits = append(waits, waitingJSON{w.GetHost(), w.GetReason(), w.GetAdvice()})
	}
	return rotationJSON{
		Phase: r.GetPhase(), Number: r.GetNumber(), Rollback: r.GetRollback(),
		Started: instant(r.GetStarted()), Deadline: instant(r.GetDeadline()),
		WaitingFor: waits, Skipped: list(r.GetSkipped()), Other: r.GetOther(), Mode: r.GetMode(), Frozen: r.GetFrozen(),
	}
}

func newHostsJSON(hosts []*pb.Host) []hostJSON {
	out := []hostJSON{}
	for _, h := range hosts {
		out = append(out, newHostJSON(h))
	}
	return out
}

func newHostJSON(h *pb.Host) hostJSON {
	return hostJSON{
		ID: h.GetId(), Name: h.GetName(), State: h.GetState(), Generation: h.GetGeneration(), Fingerprint: h.GetFingerprint(),
		LastSeen: instant(h.GetLastSeen()), Covered: h.GetCovered(), Present: h.GetPresent(), Connected: h.GetConnected(),
		Gossip: h.GetGossip(), Problem: h.GetProblem(), Version: h.GetVersion(), Address: h.GetAddress(),
		IdentityNotAfter: instant(h.GetIdentityNotAfter()), Enrolled: instant(h.GetEnrolled()), Live: h.GetLive(), Probe: h.GetProbe(),
		ClockSkew: h.GetClockSkew().AsDuration().Seconds(),
	}
}
