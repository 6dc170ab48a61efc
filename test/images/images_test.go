package images

import (
	"strings"
	"testing"
)

func TestImages(t *testing.T) {
	for name, made := range map[string]func(testing.TB) string{
		"3a": Registry, "3b": RegistryNext, "2": Debian28, "spy": Spy, "deaf": Deaf, "sick": Sick, "foreign": Foreign,
	} {
		t.Run(name, func(t *testing.T) {
			ref := made(t)
			id, err := output(t.Context(), "docker", "image", "inspect", "--format", "{{.Id}}", ref)
			if err != nil {
				t.Fatal(err)
			}
			made(t)
			if again, err := output(t.Context(), "docker", "image", "inspect", "--format", "{{.Id}}", ref); err != nil || again != id {
				t.Errorf("built twice: %s, then %s (%v)", id, again, err)
			}
			if !strings.HasPrefix(ref, Repository+":") {
				t.Error(ref)
			}
		})
	}
}
