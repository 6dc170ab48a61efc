package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// target is what is asked again and again.
type target struct {
	address string // host:port
	roots   *x509.CertPool
	path    string
	// user and password; empty: nobody signs in.
	user, password string
	accept         string
	// fresh makes a connection for each request.
	fresh bool
	// want is the status that counts, or how it begins; 0: 200.
	want int
	// from is the address to ask from; empty: the system's choice.
	from string
}

// counted is what a load came to.
type counted struct {
	requests, bytes int64
	took            time.Duration
}

func (c counted) rate() float64 { return float64(c.requests) / c.took.Seconds() }

// load asks over so many connections at once for so long. The client is as small as it
// can be, since it takes its time from the same processors: it knows answers with a
// Content-Length only.
func load(ctx context.Context, t target, connections int, d time.Duration) (counted, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var requests, bytes atomic.Int64
	var workers sync.WaitGroup
	failed := make(chan error, connections)
	began := time.Now()
	for range connections {
		workers.Go(func() {
			c := client{target: t, buffer: make([]byte, 256<<10)}
			defer c.close()
			for ctx.Err() == nil {
				n, err := c.ask()
				if err != nil {
					failed <- err
					cancel()
					return
				}
				requests.Add(1)
				bytes.Add(n)
			}
		})
	}
	workers.Wait()
	c := counted{requests.Load(), bytes.Load(), time.Since(began)}
	select {
	case err := <-failed:
		return c, fmt.Errorf("GET %s of %s: %w", t.path, t.address, err)
	default:
		return c, nil
	}
}

// client is one connection.
type client struct {
	target
	conn    *tls.Conn
	in      *bufio.Reader
	request []byte
	buffer  []byte
}

func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close() // the answer has been read
		c.conn = nil
	}
}

func (c *client) dial() error {
	d := net.Dialer{Timeout: 10 * time.Second}
	if c.from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(c.from)}
	}
	raw, err := d.Dial("tcp", c.address)
	if err != nil {
		return err
	}
	c.conn = tls.Client(raw, &tls.Config{RootCAs: c.roots, ServerName: "localhost", NextProtos: []string{"http/1.1"}})
	if err := c.conn.Handshake(); err != nil {
		return errors.Join(err, raw.Close())
	}
	c.in = bufio.NewReaderSize(c.conn, 64<<10)
	return nil
}

// ask asks once and returns how long the answer's body was.
func (c *client) ask() (int64, error) {
	if c.conn == nil {
		if err := c.dial(); err != nil {
			return 0, err
		}
	}
	if c.fresh {
		defer c.close()
	}
	if c.request == nil {
		var b bytes.Buffer
		fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\n", c.path)
		if c.user != "" {
			fmt.Fprintf(&b, "Authorization: Basic %s\r\n", base64.StdEncoding.EncodeToString([]byte(c.user+":"+c.password)))
		}
		if c.accept != "" {
			fmt.Fprintf(&b, "Accept: %s\r\n", c.accept)
		}
		b.WriteString("\r\n")
		c.request = b.Bytes()
	}
	if err := c.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, err
	}
	if _, err := c.conn.Write(c.request); err != nil {
		return 0, err
	}
	return c.answer()
}

func (c *client) answer() (int64, error) {
	first, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	want := c.want
	if want == 0 {
		want = 200
	}
	if !bytes.HasPrefix(first, []byte("HTTP/1.1 "+strconv.Itoa(want))) {
		return 0, fmt.Errorf("answered %q", strings.TrimSpace(string(first)))
	}
	length := int64(-1)
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil {
				return 0, err
			}
		}
	}
	if length < 0 {
		return 0, errors.New("the answer has no Content-Length")
	}
	for left := length; left > 0; {
		n, err := c.in.Read(c.buffer[:min(left, int64(len(c.buffer)))])
		left -= int64(n)
		if err != nil && left > 0 {
			return 0, errors.Join(err, io.ErrUnexpectedEOF)
		}
	}
	return length, nil
}
