package server

import (
	"net"
	"testing"
)

func TestSameAddress(t *testing.T) {
	for _, c := range []struct {
		given, has string
		same       bool
	}{
		{":5000", "[::]:5000", true},
		{"0.0.0.0:5000", "[::]:5000", true},
		{"127.0.0.1:7480", "127.0.0.1:7480", true},
		{":443", "[::]:5000", false},
		{"10.0.0.1:5000", "[::]:5000", false},
		{":7480", "127.0.0.1:7480", false},
		{"off", "127.0.0.1:7480", false},
	} {
		has, err := net.ResolveTCPAddr("tcp", c.has)
		if err != nil {
			t.Fatal(err)
		}
		if got := sameAddress(c.given, has); got != c.same {
			t.Errorf("sameAddress(%q, %s) = %v", c.given, c.has, got)
		}
	}
}
