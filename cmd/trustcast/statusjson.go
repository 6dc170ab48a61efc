package main

import (
	"time"

	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// statusJSON is `status -o json`. Keys are stable; lists are never null; times
// are RFC 3339 in UTC, null when unset.
type statusJSON struct {
	// Version is that of the server.
	Version string `json:"version"`
	// Time is the server's clock when it answered.
	Time *time.Time `json:"time"`
	// Started is since when the server runs.
	Started *time.Time `json:"started"`
	// FleetID is the fleet that tokens and identities belong to.
	FleetID string `json:"fleet_id"`
	// Domain is HOST:PORT as in image names.
	Domain string `json:"domain"`
	// Aliases are its further names.
	Aliases []string `json:"aliases"`
	// Generation grows each time what hosts should trust changes.
	Generation uint64 `json:"generation"`
	// Fingerprint is the SHA-256 of what hosts should trust now.
	Fingerprint string `json:"fingerprint"`
	// Serving is what the registry presents.
	Serving servingJSON `json:"serving"`
	// Rotation is the newest one.
	Rotation rotationJSON `json:"rotation"`
	// Hosts are all that are enrolled.
	Hosts []hostJSON `json:"hosts"`
	// Strangers use the registry, and are no hosts of the fleet.
	Strangers []strangerJSON `json:"strangers"`
	// Warnings are what an operator should do something about, in words.
	Warnings []string `json:"warnings"`
	// RegistryAddress is where the registry listens.
	RegistryAddress string `json:"registry_address"`
	// GRPCAddress is where agents dial.
	GRPCAddress string `json:"grpc_address"`
	// GossipAddress is empty when gossip is off.
	GossipAddress string `json:"gossip_address"`
	// GossipRing is where the replacement of the key of gossip stands.
	GossipRing ringJSON `json:"gossip_ring"`
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
	// Version grows with each step.
	Version uint64 `json:"version"`
	// Step is idle, installing, using or removing.
	Step string `json:"step"`
	// WaitingFor are hosts that have not confirmed the step.
	WaitingFor []string `json:"waiting_for"`
}

type servingJSON struct {
	// Issuer is the common name of the registry CA.
	Issuer string `json:"issuer"`
	// IssuerFingerprint is the SHA-256 of that CA's certificate.
	IssuerFingerprint string `json:"issuer_fingerprint"`
	// CANotAfter is when that CA ends.
	CANotAfter *time.Time `json:"ca_not_after"`
	// LeafNotAfter is when the certificate ends, which is replaced before.
	LeafNotAfter *time.Time `json:"leaf_not_after"`
	// Predecessors is how many links for sleepers follow the certificate.
	Predecessors int32 `json:"predecessors"`
}

type rotationJSON struct {
	// Phase is idle, staged, switched or retiring.
	Phase string `json:"phase"`
	// Number counts rotations; 0 before the first.
	Number uint64 `json:"number"`
	// Rollback says that it is being taken back.
	Rollback bool `json:"rollback"`
	// Started is when it began.
	Started *time.Time `json:"started"`
	// Deadline is until when gone hosts are waited for.
	Deadline *time.Time `json:"deadline"`
	// WaitingFor is who has not confirmed the step.
	WaitingFor []waitingJSON `json:"waiting_for"`
	// Skipped are hosts that are not waited for.
	Skipped []string `json:"skipped"`
	// Other is the common name of the CA that comes, or goes.
	Other string `json:"other"`
	// Mode is planned or compromised.
	Mode string `json:"mode"`
	// Frozen is why nothing happens, in words, else empty.
	Frozen string `json:"frozen"`
}

type waitingJSON struct {
	// Host is a host's name, or edge for the server itself.
	Host string `json:"host"`
	// Reason is why, in words.
	Reason string `json:"reason"`
	// Advice is what to do, in words.
	Advice string `json:"advice"`
}

type hostJSON struct {
	// ID is for good; a name may go to another host.
	ID string `json:"id"`
	// Name is unique in the fleet.
	Name string `json:"name"`
	// State is trusted, pending, refused, failed or gone.
	State string `json:"state"`
	// Generation is what the host has; less than the wanted one while it is pending.
	Generation uint64 `json:"generation"`
	// Fingerprint is the SHA-256 of what the host has.
	Fingerprint string `json:"fingerprint"`
	// LastSeen is its last sign.
	LastSeen *time.Time `json:"last_seen"`
	// Covered says that rotations wait for it: it has given complete evidence once.
	Covered bool `json:"covered"`
	// Present says that it gave a sign within --gone-after.
	Present bool `json:"present"`
	// Connected says that its stream is open.
	Connected bool `json:"connected"`
	// Gossip is ok, unreachable or off; empty before the first report.
	Gossip string `json:"gossip"`
	// Problem is what is wrong, in words, else empty.
	Problem string `json:"problem"`
	// Version is that of its agent.
	Version string `json:"version"`
	// Address is where its stream comes from.
	Address string `json:"address"`
	// IdentityNotAfter is when its identity ends, which is renewed before.
	IdentityNotAfter *time.Time `json:"identity_not_after"`
	// Enrolled is when it joined.
	Enrolled *time.Time `json:"enrolled"`
	// Live is the outcome of its handshake with what is served: ok, refused, intercepted, unresolved or unreachable; empty if there was none.
	Live string `json:"live"`
	// Probe is the same with what will be served.
	Probe string `json:"probe"`
	// ClockSkew is the host's clock minus the server's, in seconds.
	ClockSkew float64 `json:"clock_skew_seconds"`
	// Repairs counts what the agent mended since its start; Contested is what
	// something else changes again and again, else empty.
	Repairs   uint64      `json:"repairs"`
	Contested string      `json:"contested"`
	Places    []placeJSON `json:"places"`
}

// placeJSON is a directory that a runtime of a host reads CAs from.
type placeJSON struct {
	Runtime string `json:"runtime"`
	Dir     string `json:"dir"`
	Problem string `json:"problem"`
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
	places := []placeJSON{}
	for _, p := range h.GetPlaces() {
		places = append(places, placeJSON{p.GetRuntime(), p.GetDir(), p.GetProblem()})
	}
	return hostJSON{
		ID: h.GetId(), Name: h.GetName(), State: h.GetState(), Generation: h.GetGeneration(), Fingerprint: h.GetFingerprint(),
		LastSeen: instant(h.GetLastSeen()), Covered: h.GetCovered(), Present: h.GetPresent(), Connected: h.GetConnected(),
		Gossip: h.GetGossip(), Problem: h.GetProblem(), Version: h.GetVersion(), Address: h.GetAddress(),
		IdentityNotAfter: instant(h.GetIdentityNotAfter()), Enrolled: instant(h.GetEnrolled()), Live: h.GetLive(), Probe: h.GetProbe(),
		ClockSkew: h.GetClockSkew().AsDuration().Seconds(),
		Repairs:   h.GetRepairs(), Contested: h.GetContested(), Places: places,
	}
}
