package gossip

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// firstRetry is the wait after the first join that reached nobody; it
	// doubles up to RejoinEvery.
	firstRetry = time.Second

	// rejoiners is how many of the members that see each other look for lost
	// ones in a round. One that finds them is enough for all, and each costs
	// an exchange of the whole table.
	rejoiners = 20

	// maxTargets bounds one round of joining.
	maxTargets = 16

	// resolveWithin bounds the look-up of one name.
	resolveWithin = 5 * time.Second

	// leaveWithin is long enough to tell a large fleet (six rounds of gossip
	// for 1,000 members), and no stop waits for longer.
	leaveWithin = 2 * time.Second
)

// Run joins the peers and looks for lost members now and then until ctx ends;
// reaching nobody is never an error. Then it leaves, within 2 s, shuts down and
// waits until what memberlist still does is over: about a second, eight at
// worst. It can be called once.
func (m *Member) Run(ctx context.Context) error {
	if !m.begin() {
		return errors.New("run gossip: it runs or ran already; start another member")
	}
	var joining sync.WaitGroup
	joining.Go(func() { m.keepJoined(ctx) })
	for ctx.Err() == nil {
		select {
		case <-m.table.changed:
			m.cfg.Changed()
		case <-ctx.Done():
		}
	}
	err := m.end()
	joining.Wait() // cut off by the end of the transport
	m.settle()
	return err
}

func (m *Member) begin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	first := !m.ran
	m.ran = true
	return first
}

// keepJoined joins until ctx ends: soon and ever more slowly while a peer is
// missing, and otherwise as often as it takes to find who else was lost.
func (m *Member) keepJoined(ctx context.Context) {
	retry := m.shortest()
	for ctx.Err() == nil {
		peers := m.resolvedPeers(ctx)
		if targets := m.targets(peers); len(targets) > 0 && ctx.Err() == nil {
			_, _ = m.list.Join(targets) // the table says who was reached; memberlist logs the rest
		}
		if complete := m.seesAll(peers); complete {
			retry = m.shortest()
			m.pause(ctx, m.cfg.RejoinEvery, func() bool { return !m.seesAll(peers) })
		} else if news := m.pause(ctx, retry, func() bool { return false }); news {
			retry = m.shortest()
		} else {
			retry = min(2*retry, m.cfg.RejoinEvery)
		}
	}
}

func (m *Member) shortest() time.Duration { return min(firstRetry, m.cfg.RejoinEvery) }

// pause waits for about this long; less when the peers changed, which it
// reports, or when a death is a reason to be early.
func (m *Member) pause(ctx context.Context, wait time.Duration, early func() bool) (news bool) {
	timer := time.NewTimer(wait*3/4 + rand.N(wait/2+1))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		case <-m.rejoin:
			return true
		case <-m.table.died:
			if early() {
				return false
			}
		}
	}
}

// seesAll reports whether somebody is alive, and somebody at each peer.
func (m *Member) seesAll(peers []string) bool {
	alive, _ := m.table.lost(0)
	return len(alive) > 0 && !slices.ContainsFunc(peers, func(p string) bool { return !alive[p] && p != m.dialled })
}

// targets are the addresses to join in this round: peers that are not seen
// alive, and a few of the dead. In a large fleet most members pass most rounds.
func (m *Member) targets(peers []string) []string {
	alive, dead := m.table.lost(2)
	if n := len(alive) + 1; n > rejoiners && rand.IntN(n) >= rejoiners {
		return nil
	}
	var targets []string
	for _, address := range slices.Concat(peers, dead) {
		if !alive[address] && address != m.dialled && len(targets) < maxTargets {
			targets = append(targets, address)
		}
	}
	return targets
}

// resolvedPeers looks the peers up here, not in memberlist, where it would
// heed neither a context nor the system's resolver.
func (m *Member) resolvedPeers(ctx context.Context) []string {
	m.mu.Lock()
	peers := m.peers // never changed in place
	m.mu.Unlock()
	var found []string
	for _, peer := range peers {
		if _, err := netip.ParseAddrPort(peer); err == nil {
			found = append(found, peer)
			continue
		}
		host, port, err := net.SplitHostPort(peer)
		if err != nil {
			m.cfg.Log.Debug("gossip peer skipped", "peer", peer, "err", err)
			continue
		}
		for _, ip := range resolve(ctx, host) {
			found = append(found, net.JoinHostPort(ip.String(), port))
		}
	}
	rand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	return found
}

// resolve returns the addresses of a name; none when it is not known now.
func resolve(ctx context.Context, host string) []netip.Addr {
	ctx, cancel := context.WithTimeout(ctx, resolveWithin)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil // tried again in the next round
	}
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	return ips
}

// end leaves and shuts down. memberlist takes no updates after it left.
func (m *Member) end() error {
	m.mu.Lock()
	m.ended = true
	m.mu.Unlock()
	m.updating <- struct{}{} // an update in flight goes first
	<-m.updating
	_ = m.list.Leave(leaveWithin) // unheard, the others find out by probing
	m.table.close()
	return m.list.Shutdown()
}

// settle waits for what Shutdown does not: relayed probes (one probe timeout)
// and a probe of our own that nobody answers (one probe interval, stretched by
// how unhealthy memberlist finds itself). Neither can be cut short.
func (m *Member) settle() {
	if len(m.Members()) == 0 {
		return // nobody to probe
	}
	wait := m.patient
	if time.Since(m.table.lastPing()) >= m.probe {
		wait = m.probe * time.Duration(1+m.list.GetHealthScore())
	}
	time.Sleep(wait)
}
