package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"
)

const (
	// guessers are the connections of a flood.
	guessers = 32
	// guessEvery is how often each asks at most. All of them together are then cheap
	// for those who ask and those who only answer: they share the processors with the
	// server, and it is the passwords that are to be measured.
	guessEvery = 100 * time.Millisecond
	// newcomer is the user who signs in anew; registry 3.1.2 has one user only.
	newcomer = "newcomer"
)

// The floods: from which address each connection guesses. Each round has its own, which
// have given no wrong password yet.
var floods = []struct {
	name   string
	from   func(round, connection int) string
	onOurs bool // the peer knows no addresses: once is enough
}{
	{"nobody guesses", nil, false},
	{"guesses from one address", func(round, _ int) string { return fmt.Sprintf("127.1.%d.1", round+1) }, false},
	{"guesses from 32 addresses", func(round, c int) string { return fmt.Sprintf("127.2.%d.%d", round+1, c+1) }, true},
}

// flood measures valid users while others guess passwords.
func flood(ctx context.Context, l *lab) (*table, error) {
	t := &table{
		title:    "Sign-in under attack",
		subjects: []string{ours, officialIn},
		unequal: []string{
			"new sign-ins come from an address at which a user is signed in; from an address that the server has never seen they wait behind guesses from others of that kind",
			fmt.Sprintf("the guessers share the processors with the server, so each of the %d connections stays open and asks %d times a second at most, whatever is answered (401 or 429): %.0f guesses a second in all, none twice, half of them for users that there are. A figure begins when its flood is a second old",
				guessers, time.Second/guessEvery, guessers/guessEvery.Seconds()),
			"a new sign-in is one request on a new connection; for ours its password was set a moment before, so that it needs a bcrypt, as each request to " + officialIn + " does",
			"processor time a manifest has that of the guesses in it",
			official + " knows no limits by address: many addresses are left out for it",
		},
	}
	contenders, err := flooded(ctx, l)
	if err != nil {
		return nil, err
	}
	for round := range l.rounds {
		for _, s := range t.subjects {
			for _, f := range floods {
				if f.onOurs && s != ours {
					continue
				}
				if err := underFlood(ctx, l, t, s, contenders[s], f.name, round, f.from); err != nil {
					return nil, fmt.Errorf("%s, %s: %w", s, f.name, err)
				}
			}
		}
	}
	alone := pulls(t, floods[0].name)
	for _, f := range floods[1:] {
		under := pulls(t, f.name)
		t.atLeast("pulls under "+f.name+" against pulls alone", figure{ours: under.median(ours), peer: alone.median(ours), unit: perSecond}, 0.8)
	}
	t.headline("While others guess passwords, clients pull %s times as many manifests a second as from "+official+".",
		number(pulls(t, floods[1].name).against(officialIn).ratio()))
	t.atLeast("pulls under "+floods[1].name+" against "+officialIn, pulls(t, floods[1].name).against(officialIn), 200)
	return t, nil
}

func pullsWhile(flood string) string { return "manifests, " + flood }

func pulls(t *table, flood string) *row { return t.row(pullsWhile(flood), perSecond) }

func newSignIns(t *table, flood string) *row { return t.row("new sign-in, "+flood, "ms") }

// flooded are the contenders, each with an image.
func flooded(ctx context.Context, l *lab) (map[string]*contender, error) {
	us, err := l.trustcast(ctx)
	if err != nil {
		return nil, err
	}
	peer, err := l.registry3(ctx, true)
	if err != nil {
		return nil, err
	}
	image, err := random.Image(1<<20, 1)
	if err != nil {
		return nil, err
	}
	return map[string]*contender{ours: us, officialIn: peer}, errors.Join(us.push(ctx, image), peer.push(ctx, image))
}

// underFlood measures pulls and new sign-ins while guesses come in.
func underFlood(ctx context.Context, l *lab, t *table, subject string, c *contender, name string, round int, from func(round, connection int) string) (err error) {
	if from != nil {
		end := guess(ctx, c.at("/v2/", ""), func(connection int) string { return from(round, connection) })
		defer func() { err = errors.Join(err, end()) }()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
	manifest := c.at("/v2/bench/image/manifests/v1", accepted)
	if err := measure(ctx, t, subject, pullsWhile(name), c, manifest, 1500*time.Millisecond); err != nil {
		return err
	}
	for range 2 {
		took, err := signInAnew(ctx, l, subject, c)
		if err != nil {
			return err
		}
		newSignIns(t, name).add(subject, float64(took.Microseconds())/1000)
	}
	return nil
}

// signInAnew is how long a sign-in takes that needs a bcrypt.
func signInAnew(ctx context.Context, l *lab, subject string, c *contender) (time.Duration, error) {
	at := c.at("/v2/", "")
	at.fresh = true
	if subject == ours { // a new hash, which no memory knows
		program, err := l.program(ctx, "trustcast")
		if err != nil {
			return 0, err
		}
		if _, err := output(ctx, strings.NewReader(password), program, "user", "add", newcomer, "--password-stdin", "--data-dir", c.data); err != nil {
			return 0, err
		}
		at.user = newcomer
	}
	began := time.Now()
	asks := client{target: at, buffer: make([]byte, 4<<10)}
	defer asks.close()
	_, err := asks.ask()
	return time.Since(began), err
}

// guess floods a server with wrong passwords until end is called.
func guess(ctx context.Context, t target, from func(connection int) string) (end func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var guesses atomic.Int64
	var workers sync.WaitGroup
	failed := make(chan error, guessers)
	for i := range guessers {
		workers.Go(func() {
			at := t
			at.from, at.want = from(i), 4 // 401 or 429
			c := client{target: at, buffer: make([]byte, 4<<10)}
			defer c.close()
			if err := c.dial(); err != nil {
				failed <- err
				return
			}
			conn := c.conn // a server that is busy with guesses is not waited for at the end
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			next := time.NewTicker(guessEvery)
			defer next.Stop()
			for ctx.Err() == nil {
				n := guesses.Add(1)
				c.user, c.password, c.request = user, fmt.Sprintf("guess-%d-%d", time.Now().UnixNano(), n), nil
				if n%2 == 0 {
					c.user = fmt.Sprint("nobody-", n%100)
				}
				if _, err := c.ask(); err != nil {
					if ctx.Err() == nil {
						failed <- err
					}
					return
				}
				select {
				case <-next.C:
				case <-ctx.Done():
				}
			}
		})
	}
	return func() error {
		cancel()
		workers.Wait()
		select {
		case err := <-failed:
			return fmt.Errorf("guess: %w", err)
		default:
			return nil
		}
	}
}
