package replica

import (
	"errors"
	"flag"
	"testing"
	"testing/synctest"
)

var (
	simSeeds = flag.Int("sim.seeds", 60, "runs of the simulator")
	simSteps = flag.Int("sim.steps", 1500, "steps of a run")
	simSeed  = flag.Uint64("sim.seed", 0, "one run with this seed, with what happened in it")
)

func simulate(t *testing.T, seed uint64, m mutant, steps int, trace func(string, ...any)) (s *sim, err error) {
	synctest.Test(t, func(*testing.T) {
		s = newSim(seed, m, trace)
		err = s.run(steps)
	})
	return s, err
}

func silent(string, ...any) {}

// TestSimulation: whatever happens, no acknowledged record is lost and none of
// an old epoch is acknowledged after a newer one has begun without it.
func TestSimulation(t *testing.T) {
	seeds, from, trace := *simSeeds, uint64(1), silent
	if *simSeed != 0 {
		seeds, from, trace = 1, *simSeed, t.Logf
	}
	records, takeovers, faults := 0, 0, 0
	for seed := from; seed < from+uint64(seeds); seed++ {
		s, err := simulate(t, seed, sound, *simSteps, trace)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		records, takeovers, faults = records+s.records, takeovers+s.takeovers, faults+s.faults
	}
	t.Logf("%d runs, %d acknowledged records, %d take-overs, %d faults: nothing lost", seeds, records, takeovers, faults)
}

// TestMutants: the simulator sees each of the known ways to lose a record.
func TestMutants(t *testing.T) {
	for _, m := range []mutant{forgetsPromise, acksByOne, skipsSync, takesLongest, ignoresIdentity} {
		t.Run(string(m), func(t *testing.T) {
			for seed := uint64(1); seed <= 2000; seed++ {
				if _, err := simulate(t, seed, m, *simSteps, silent); errors.Is(err, errLoss) {
					if _, err := simulate(t, seed, unbroken, *simSteps, silent); err != nil {
						t.Fatalf("seed %d without the mutation: %v", seed, err)
					}
					t.Logf("caught with seed %d: %v", seed, err)
					return
				}
			}
			t.Error("not caught")
		})
	}
}
