package explore

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"slices"

	"github.com/trustcast/trustcast/server/authority"
)

// key stands for a world and all that differ from it only in names: of hosts, and
// of numbers whose order alone counts. It is a hash of 128 bits: among ten million
// worlds two share one with a chance of 10^-25.
type key [2]uint64

// coder writes a world down so that equal text means equal future.
type coder struct {
	seeds [2]maphash.Seed
	exact bool
	buf   []byte
	parts [maxHosts][]byte

	w    *world
	cas  [2]uint64 // the CAs that occur, a bit each
	gens []uint32  // the generations that occur, in order
}

// key of a world; whole: what is left of the budget counts.
func (c *coder) key(w *world, whole bool) key {
	c.w = w
	c.collect()
	c.buf = c.buf[:0]
	c.record(&w.rec)
	c.flags(w.published, w.late && w.rec.Phase != authority.Idle, w.astray, w.backup != nil)
	c.chain(w.edge.Chain)
	c.chain(w.edge.nextChain)
	c.put(c.ca(ca(w.edge.Active)), c.ca(ca(w.edge.Next)), w.version-w.edge.version, c.ca(w.ended)) //nolint:gosec // fewer than 64
	if w.pressed != 0 && (w.rec.Active == authority.CAID(w.pressed) || w.rec.Other == authority.CAID(w.pressed)) {
		c.put(c.ca(w.pressed), w.worn)
	} else {
		c.put(0, 0)
	}
	if w.backup != nil {
		c.record(&w.backup.rec)
		c.put(w.version - w.backup.version)
	}
	if whole {
		for _, left := range w.left.all() {
			c.put(*left)
		}
	}
	c.hosts()
	return key{maphash.Bytes(c.seeds[0], c.buf), maphash.Bytes(c.seeds[1], c.buf)}
}

// collect finds the CAs and generations that occur.
func (c *coder) collect() {
	c.cas, c.gens = [2]uint64{}, c.gens[:0]
	c.meetRecord(&c.w.rec)
	if c.w.backup != nil {
		c.meetRecord(&c.w.backup.rec)
	}
	c.meetChain(c.w.edge.Chain)
	c.meetChain(c.w.edge.nextChain)
	c.meet(ca(c.w.edge.Active), ca(c.w.edge.Next)) //nolint:gosec // fewer than 64
	for i := range c.w.hosts {
		h := &c.w.hosts[i]
		c.meetOffer(&h.trusted)
		c.meet(h.disk.a, h.disk.b)
		c.gens = append(c.gens, h.known, h.kept.known)
		c.meetReport(&h.evidence)
		for j := range h.down {
			c.meetOffer(&h.down[j])
			c.meetReport(&h.up[j])
		}
	}
	slices.Sort(c.gens)
	c.gens = slices.Compact(c.gens)
}

func (c *coder) meet(cas ...ca) {
	for _, id := range cas {
		if id != 0 {
			c.cas[id/64] |= 1 << (id % 64)
		}
	}
}

func (c *coder) meetOffer(o *offer) {
	if !o.none() {
		c.meet(o.bundle.a, o.bundle.b, o.active, o.next)
		c.gens = append(c.gens, o.gen)
	}
}

func (c *coder) meetReport(r *report) {
	if r.seq != 0 {
		c.meet(r.disk.a, r.disk.b)
		c.gens = append(c.gens, r.gen)
	}
}

func (c *coder) meetChain(chain []authority.Link) {
	for _, l := range chain {
		c.meet(ca(l.CA), ca(l.By))                    //nolint:gosec // fewer than 64
		c.gens = append(c.gens, uint32(l.Generation)) //nolint:gosec // Unix seconds at most
	}
}

func (c *coder) meetRecord(r *authority.Rotation) {
	c.meet(ca(r.Active), ca(r.Other)) //nolint:gosec // fewer than 64
	b := rootsOf(r.Bundle)
	c.meet(b.a, b.b)
	c.meetChain(r.Chain)
	c.meetChain(r.OtherChain)
	c.gens = append(c.gens, uint32(r.Generation), uint32(r.Reach), uint32(r.OtherReach)) //nolint:gosec // Unix seconds at most
}

// ca is the rank of a CA among those that occur; 0 for none.
func (c *coder) ca(id ca) byte {
	switch {
	case id == 0:
		return 0
	case c.exact:
		return id
	case id < 64:
		return byte(bits.OnesCount64(c.cas[0]&(1<<id-1)) + 1) //nolint:gosec // 64 at most
	default:
		return byte(bits.OnesCount64(c.cas[0]) + bits.OnesCount64(c.cas[1]&(1<<(id-64)-1)) + 1) //nolint:gosec // 128 at most
	}
}

func (c *coder) gen(g uint32) {
	if c.exact {
		c.number(g)
		return
	}
	i, _ := slices.BinarySearch(c.gens, g)
	c.put(byte(i)) //nolint:gosec // a few dozen
}

func (c *coder) number(n uint32) { c.put(byte(n), byte(n>>8), byte(n>>16), byte(n>>24)) } //nolint:gosec // its bytes

func (c *coder) put(b ...byte) { c.buf = append(c.buf, b...) }

func (c *coder) flags(bits ...bool) {
	var b byte
	for i, set := range bits {
		if set {
			b |= 1 << i
		}
	}
	c.put(b)
}

func (c *coder) chain(chain []authority.Link) {
	c.put(byte(len(chain))) //nolint:gosec // 16 at most
	for _, l := range chain {
		c.put(c.ca(ca(l.CA)), c.ca(ca(l.By))) //nolint:gosec // fewer than 64
		c.gen(uint32(l.Generation))           //nolint:gosec // Unix seconds at most
	}
}

func (c *coder) roots(r roots) { c.put(c.ca(r.a), c.ca(r.b)) }

func (c *coder) record(r *authority.Rotation) {
	c.put(r.Phase[0], r.Phase[1])
	c.flags(r.Rollback, r.Compromised, r.Restored, len(r.Uncover) > 0, r.Adopted != 0 && r.Active == r.Adopted, r.Adopted != 0 && r.Other == r.Adopted)
	c.put(c.ca(ca(r.Active)), c.ca(ca(r.Other)), byte(len(r.Bundle))) //nolint:gosec // fewer than 64
	c.roots(rootsOf(r.Bundle))
	c.chain(r.Chain)
	c.chain(r.OtherChain)
	c.gen(uint32(r.Generation)) //nolint:gosec // Unix seconds at most
	c.gen(uint32(r.Reach))      //nolint:gosec // Unix seconds at most
	c.gen(uint32(r.OtherReach)) //nolint:gosec // Unix seconds at most
	if c.exact {
		c.number(uint32(r.Rev))         //nolint:gosec // Unix seconds at most
		c.number(uint32(r.Number))      //nolint:gosec // a few
		c.number(uint32(r.SwitchedRev)) //nolint:gosec // Unix seconds at most
	}
}

func (c *coder) since(rev, number, gen uint32) {
	if c.exact {
		c.number(rev)
		c.number(number)
		return
	}
	s := c.w.since(rev, number, gen)
	c.flags(s.switched, s.current)
}

func (c *coder) offer(o *offer) {
	if o.none() {
		c.put(0)
		return
	}
	c.put(1, c.ca(o.active), c.ca(o.next), c.w.version-o.version)
	c.roots(o.bundle)
	c.gen(o.gen)
	c.since(o.rev, o.number, o.gen)
}

func (c *coder) report(r *report) {
	if r.seq == 0 {
		c.put(0)
		return
	}
	c.put(1, byte(r.probe), byte(r.live))
	c.flags(r.offline, r.broken, r.refuses)
	c.roots(r.disk)
	c.roots(r.solo)
	c.gen(r.gen)
	c.since(r.rev, r.number, r.gen)
}

// hosts are written down each for itself, and then in an order of their texts.
func (c *coder) hosts() {
	head := len(c.buf)
	for i := range c.w.hosts {
		c.buf = c.buf[:head]
		if h := &c.w.hosts[i]; h.exists() {
			c.host(h)
		}
		c.parts[i] = append(c.parts[i][:0], c.buf[head:]...)
	}
	c.buf = c.buf[:head]
	slices.SortFunc(c.parts[:], bytes.Compare)
	for _, p := range c.parts {
		c.put(byte(len(p))) //nolint:gosec // below 256
		c.buf = append(c.buf, p...)
	}
}

func (c *coder) host(h *host) {
	w := c.w
	c.flags(h.covered, h.removed, h.present, h.stream, h.greeted, h.aged, h.leaves, h.drifted)
	c.flags(h.broken, h.refuses, w.skipped(h), w.leaving(h), h.kept.exists, h.kept.covered, h.kept.removed, len(h.name) > len(names[0]))
	c.gen(h.known)
	c.gen(h.kept.known)
	c.roots(h.disk)
	c.offer(&h.trusted)
	c.since(h.shown, 0, 0)
	c.report(&h.evidence)
	if h.kept.exists && w.backup != nil {
		c.flags(slices.Contains(w.backup.rec.Skipped, h.name), slices.Contains(w.backup.rec.Uncover, h.name))
	}
	for i := range h.down {
		c.offer(&h.down[i])
	}
	for i := range h.up {
		c.report(&h.up[i])
		c.flags(h.up[i].seq > h.evidence.seq, i > 0 && h.up[i].seq > h.up[i-1].seq)
	}
}
