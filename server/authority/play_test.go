package authority

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trustcast/trustcast/certs"
)

// play is a small world around the pure rotation: an edge, hosts with disks, and
// a clock. Transcripts and the property test drive it; the rotation cannot tell
// it from the real one.
type play struct {
	rec     Rotation
	now     time.Time
	serving Serving
	stuck   bool // the edge takes nothing new
	hosts   []*actor
	out     strings.Builder
	life    time.Duration // of CAs made from now on
	lives   map[CAID]Life
	ends    map[Link]time.Time
	lawless bool // S1 and S4 are broken from outside
	clock   bool // the server's clock cannot be relied on
	ready   time.Time
	// wasCovered before the last event, by name.
	wasCovered map[string]bool
	// backup of the record, and of the hosts' own by ID.
	backup      Rotation
	backupHosts map[string]Host
	broken      string // the first invariant about a step that did not hold
}

// actor is a host: what is on its disk, and what it reported last.
type actor struct {
	Host
	disk    []CAID // roots on disk
	known   uint64 // the generation that the fleet's record has
	gen     uint64 // the generation they belong to
	at      time.Time
	refuses bool
	broken  bool // something in certs.d makes Docker fail every pull
}

const (
	playTick     = time.Minute
	playPatience = 10 * time.Minute
)

func newPlay() *play {
	p := &play{
		rec: First(), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), wasCovered: map[string]bool{},
		life: 365 * 24 * time.Hour, lives: map[CAID]Life{}, ends: map[Link]time.Time{},
	}
	p.lives[1] = Life{From: p.now, Until: p.now.Add(p.life)}
	p.settle()
	return p
}

// take makes next the record, and the CA and the link that it names for the first
// time.
func (p *play) take(next Rotation) {
	if next.LastCA != p.rec.LastCA {
		p.lives[next.LastCA] = Life{From: p.now, Until: p.now.Add(p.life)}
	}
	for _, l := range next.OtherChain {
		if _, known := p.ends[l]; !known {
			p.ends[l] = p.lives[l.CA].Until
			if by := p.lives[l.By].Until; by.Before(p.ends[l]) {
				p.ends[l] = by
			}
		}
	}
	p.rec = next
}

func (p *play) view() View {
	v := View{Now: p.now, Tick: playTick, Serving: p.serving, Ready: p.ready, ClockOff: p.clock, Active: p.lives[p.rec.Active], Other: p.lives[p.rec.Other]}
	for _, chain := range [][]Link{p.rec.Chain, p.rec.OtherChain} {
		for _, l := range chain {
			if !p.now.Before(p.ends[l]) {
				v.Ended = append(v.Ended, l)
			}
		}
	}
	for _, h := range p.hosts {
		seen := h.Host
		seen.Connected = h.Present
		seen.Generation = h.known
		if h.Evidence != nil {
			e := *h.Evidence
			e.Age = p.now.Sub(h.at)
			seen.Evidence = &e
		}
		v.Hosts = append(v.Hosts, seen)
	}
	return v
}

func (p *play) settle() {
	if !p.stuck {
		p.load()
	}
}

// load makes the edge serve the record.
func (p *play) load() {
	if p.rec.Restored { // a restart with a restored record
		p.serving = Serving{}
		return
	}
	p.serving = Serving{Active: p.rec.Active, Chain: p.rec.Chain}
	if p.rec.Phase == Staged && !p.rec.Rollback {
		p.serving.Next = p.rec.Other
	}
}

// run lets everything happen that is due: settle, cover, advance.
func (p *play) run() {
	for {
		p.settle()
		for _, id := range p.rec.Uncover {
			p.actor(id).Covered = false
			fmt.Fprintf(&p.out, "  %s is not covered any more\n", id)
		}
		if len(p.rec.Uncover) > 0 {
			p.take(p.rec.Uncovered())
			continue
		}
		for _, h := range p.view().Hosts {
			if !h.Covered && !h.Removed && h.Evidence != nil && p.rec.Complete(h, p.view()) {
				p.actor(h.ID).Covered = true
				fmt.Fprintf(&p.out, "  %s is covered\n", h.Name)
			}
		}
		p.ready = p.rec.readySince(p.ready, p.view())
		next := p.rec.Advance(p.view())
		if next.Rev == p.rec.Rev {
			return
		}
		fmt.Fprintf(&p.out, "  %s\n", stepText(p.rec, next))
		p.checkStep(p.rec, next)
		p.take(next)
	}
}

func stepText(before, after Rotation) string {
	if before.Phase != after.Phase {
		return fmt.Sprintf("%s -> %s", before.Phase, after.Phase)
	}
	return eventOf(before, after)
}

func (p *play) actor(name string) *actor {
	for _, h := range p.hosts {
		if h.Name == name {
			return h
		}
	}
	panic("no host " + name)
}

// install puts the wanted bundle on a host's disk.
func (p *play) install(h *actor) { h.disk, h.gen = p.rec.Bundle, p.rec.Generation }

// ack is an honest report about what is on disk.
func (p *play) ack(h *actor) {
	e := &Evidence{
		Revision: p.rec.Rev, Number: p.rec.Number, Generation: h.gen, Bundle: h.disk,
		Offline: !h.broken, Live: certs.OK,
	}
	if !slices.Equal(h.disk, p.rec.Bundle) {
		e.Bundle = nil // none of ours
	}
	if h.broken {
		e.Problem = "x.crt is a directory"
	}
	if p.rec.Phase == Staged && !p.rec.Rollback {
		e.Probe = certs.OK
	}
	for _, ca := range h.disk {
		if ca == p.rec.Active || ca == p.rec.Other {
			e.Solo = append(e.Solo, ca)
		}
	}
	switch {
	case p.serving.Active == 0:
		e.Live, e.Probe = certs.Unreachable, certs.NotTried
	case !p.verifies(h.disk, p.serving):
		e.Live = certs.Refused
	}
	h.known = max(h.known, h.gen)
	if h.refuses {
		e.Probe, e.Live, e.Problem = certs.Refused, certs.Refused, "the name is wrong"
	}
	h.Evidence, h.at = e, p.now
}

// verifies says whether a client with a disk accepts what is served now: trusts,
// but for what has ended.
func (p *play) verifies(disk []CAID, s Serving) bool {
	if p.clock { // nobody here knows what has ended
		return trusts(disk, s)
	}
	alive := func(ca CAID) bool { return p.now.Before(p.lives[ca].Until) }
	disk = slices.DeleteFunc(slices.Clone(disk), func(ca CAID) bool { return !alive(ca) })
	s.Chain = slices.DeleteFunc(slices.Clone(s.Chain), func(l Link) bool { return !p.now.Before(p.ends[l]) })
	return alive(s.Active) && trusts(disk, s)
}

// trusts says whether a disk verifies what is served: it holds the issuer, or a
// CA from which links lead to it. crypto/x509 is tied to this by a test.
func trusts(disk []CAID, s Serving) bool {
	known := slices.Clone(disk)
	for range s.Chain {
		for _, l := range s.Chain {
			if slices.Contains(known, l.By) && !slices.Contains(known, l.CA) {
				known = append(known, l.CA)
			}
		}
	}
	return slices.Contains(known, s.Active)
}

// checkStep checks what the invariants say about a step of the server. It looks
// at disks, not at evidence: evidence must not lie.
func (p *play) checkStep(before, after Rotation) {
	complain := func(text string) {
		if p.broken == "" {
			p.broken = text
		}
	}
	switch {
	case after.Generation < before.Generation:
		complain("S4: the generation fell")
	case after.Generation == before.Generation && !slices.Equal(after.Bundle, before.Bundle):
		complain("S4: the bundle changed under one generation")
	case before.Phase == Retiring && after.Phase != Idle && after.Phase != Retiring:
		complain("S7: a way back from retiring")
	}
	switches := before.Phase == Staged && after.Phase == Switched
	retires := before.Phase == Switched && after.Phase == Retiring
	hurried := before.Compromised || before.pressing(p.view())
	if !switches && !retires || hurried {
		return
	}
	for _, h := range p.hosts {
		mayLack := h.Removed || slices.Contains(after.Uncover, h.ID) || !h.Covered || slices.Contains(before.Skipped, h.ID) || !h.Present && !p.now.Before(before.Deadline)
		switch {
		case mayLack:
		case !slices.Contains(h.disk, after.Active):
			complain(fmt.Sprintf("S2: %s -> %s although %s has only %v", before.Phase, after.Phase, h.Name, h.disk))
		case h.Evidence == nil || after.Phase == Retiring && h.Evidence.Revision < before.SwitchedRev:
			complain(fmt.Sprintf("S7: retired although %s has not confirmed", h.Name))
		}
	}
	if after.Phase == Retiring && !before.settled(p.view()) {
		complain("S7: retired although the edge has not settled")
	}
}

// do performs one line of a transcript.
func (p *play) do(line string) error {
	f := strings.Fields(line)
	var err error
	switch f[0] {
	case "adopted": // the play begins with a registry that was taken over
		p.rec = Taken()
		p.lives[1] = Life{From: p.now, Until: p.now.Add(p.life)}
	case "hosts":
		for _, name := range f[1:] {
			p.hosts = append(p.hosts, &actor{Host: Host{ID: name, Name: name, Present: true}})
		}
	case "rotate":
		var next Rotation
		if next, err = p.rec.Rotate(p.view(), playPatience); err == nil {
			p.take(next)
		}
	case "replace":
		var next Rotation
		if next, err = p.rec.Replace(p.view(), playPatience); err == nil {
			p.take(next)
		}
	case "compromise":
		var next Rotation
		if next, err = p.rec.Compromise(p.view(), compromisedPatience); err == nil {
			p.take(next)
		}
	case "rollback":
		var next Rotation
		if next, err = p.rec.TakeBack(p.view()); err == nil {
			p.take(next)
		}
	case "skip":
		var next Rotation
		if next, err = p.rec.Skip(f[1]); err == nil {
			p.take(next)
		}
	case "servenow":
		var next Rotation
		if next, err = p.rec.ServeNow(p.view()); err == nil {
			p.take(next)
		}
	case "keep": // a backup is made
		p.backup, p.backupHosts = p.rec, map[string]Host{}
		for _, h := range p.hosts {
			p.backupHosts[h.ID] = h.Host
		}
	case "restore": // the server starts anew from the backup
		if p.backup.Rev == 0 {
			break
		}
		floor := floorAt(p.now)
		if len(f) > 1 { // with a clock that is far behind
			floor = 0
		}
		p.take(p.backup.Restore(floor))
		p.load()
		for _, h := range p.hosts {
			kept := p.backupHosts[h.ID]
			h.Evidence, h.Present, h.known, h.Covered, h.Removed = nil, true, 0, kept.Covered, kept.Removed
			p.wasCovered[h.Name] = h.Covered
		}
	case "copy": // an old copy of the server's state is started: nothing is promised
		p.lawless = true
		p.take(p.backup)
		p.load()
		for _, h := range p.hosts {
			h.Evidence, h.Present = nil, true
		}
	case "claim": // a host lies about its generation
		h := p.actor(f[1])
		p.ack(h)
		h.Evidence.Generation, err = strconv.ParseUint(f[2], 10, 64)
	case "clock":
		p.clock = f[1] == "off"
	case "life":
		var d time.Duration
		if d, err = time.ParseDuration(f[1]); err == nil {
			p.life = d
		}
	case "plan":
		s := Start{Patience: playPatience}
		if len(f) > 1 {
			s = Start{Patience: compromisedPatience, Compromised: true}
		}
		plan := p.rec.Plan(p.view(), s, nil)
		if plan.Blocked != nil {
			fmt.Fprintf(&p.out, "  blocked: %v\n", plan.Blocked)
		}
		for _, o := range plan.Hosts {
			fmt.Fprintf(&p.out, "  %s %s: %s\n", o.Host, o.What, o.Text)
		}
		return nil
	case "leaf":
		p.take(p.rec.RenewLeaf())
	case "ack": // install what is wanted and report it
		for _, name := range f[1:] {
			p.install(p.actor(name))
			p.ack(p.actor(name))
		}
	case "report": // report without installing
		p.ack(p.actor(f[1]))
	case "unreachable":
		h := p.actor(f[1])
		p.install(h)
		p.ack(h)
		h.Evidence.Probe, h.Evidence.Live = certs.Unreachable, certs.Unreachable
	case "refuse", "mend":
		p.actor(f[1]).refuses = f[0] == "refuse"
	case "break", "tidy":
		p.actor(f[1]).broken = f[0] == "break"
	case "gone", "back":
		for _, name := range f[1:] {
			p.actor(name).Present = f[0] == "back"
		}
	case "remove":
		p.actor(f[1]).Removed = true
	case "edge":
		p.stuck = f[1] == "stuck"
	case "crash": // evidence is lost, the edge loads the record, all are present
		for _, h := range p.hosts {
			h.Evidence, h.Present = nil, true
		}
		p.load()
	case "tick":
		var d time.Duration
		if d, err = time.ParseDuration(f[1]); err == nil {
			p.now = p.now.Add(d)
		}
	case "show":
		p.show()
		return nil
	default:
		return fmt.Errorf("unknown line %q", line)
	}
	if err != nil {
		fmt.Fprintf(&p.out, "  error: %v\n", err)
		return nil
	}
	p.run()
	return nil
}

func (p *play) show() {
	r := p.rec
	fmt.Fprintf(&p.out, "  %s rotation %d generation %d active %d other %d bundle %v chain %v\n",
		r.Phase, r.Number, r.Generation, r.Active, r.Other, r.Bundle, linksText(r.Chain))
	for _, w := range r.Waiting(p.view()) {
		fmt.Fprintf(&p.out, "  waits for %s: %s (%s)\n", w.Host, w.Reason, w.Advice)
	}
}

func linksText(chain []Link) string {
	var s []string
	for _, l := range chain {
		s = append(s, fmt.Sprintf("%d by %d", l.CA, l.By))
	}
	return "[" + strings.Join(s, ", ") + "]"
}
