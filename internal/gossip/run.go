package gossip

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
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

// keepJoined joins until ctx ends: soon while nobody is reached, and then as
// often as it takes to find who was lost.
func (m *Member) keepJoined(ctx context.Context) {
	retry := min(firstRetry, m.cfg.RejoinEvery)
	for {
		if targets := m.targets(ctx); len(targets) > 0 && ctx.Err() == nil {
			_, _ = m.list.Join(targets) // the table says who was reached; memberlist logs the rest
		}
		wait := m.cfg.RejoinEvery
		if !m.Reached() {
			wait, retry = retry, min(2*retry, m.cfg.RejoinEvery)
		}
		select {
		case <-time.After(wait*3/4 + rand.N(wait/2+1)):
		case <-m.rejoin:
			retry = min(firstRetry, m.cfg.RejoinEvery)
		case <-ctx.Done():
			return
		}
	}
}

// targets are the addresses to join in this round: peers that are not seen
// alive, and a few of the dead. In a large fleet most members pass most rounds.
func (m *Member) targets(ctx context.Context) []string {
	alive, dead := m.table.lost(2)
	if n := len(alive) + 1; n > rejoiners && rand.IntN(n) >= rejoiners {
		return nil
	}
	var targets []string
	for _, address := range append(m.resolvedPeers(ctx), dead...) {
		if !alive[address] && address != m.address && len(targets) < maxTargets {
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
