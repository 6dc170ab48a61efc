package near_test

import (
	"strings"
	"testing"

	"github.com/trustcast/trustcast/internal/near"
)

func TestWord(t *testing.T) {
	known := []string{"grpc-listen", "http-listen", "listen", "tick"}
	for word, want := range map[string]string{
		"listne": "listen", "GRPC-LISTEN": "grpc-listen", "grpc_listen": "grpc-listen", "tik": "tick", "ticks": "tick",
		"": "", "x": "", "domain": "", strings.Repeat("tick", 100): "",
	} {
		if got := near.Word(word, known); got != want {
			t.Errorf("Word(%q) = %q, want %q", word, got, want)
		}
	}
}
