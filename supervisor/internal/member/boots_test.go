package member

import (
	"slices"
	"testing"
)

// TestNextBoot: every start has a name of its own and knows of those before it,
// however many there were.
func TestNextBoot(t *testing.T) {
	i := &Identity{dir: t.TempDir()}
	var all []string
	for n := range keptBoots + 3 {
		boot, earlier, err := i.NextBoot()
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(all, boot) {
			t.Fatalf("start %d has the name of an earlier one", n)
		}
		if want := all[max(0, len(all)-keptBoots):]; !slices.Equal(earlier, want) {
			t.Fatalf("start %d knows of %d others, want %d", n, len(earlier), len(want))
		}
		all = append(all, boot)
	}
}
