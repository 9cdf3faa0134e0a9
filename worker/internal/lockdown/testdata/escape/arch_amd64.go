package main

// archAttempts are those that only this architecture has: getpid by its x32
// number slips past a filter that looks at plain numbers.
func archAttempts() map[string]func(params) error {
	return map[string]func(params) error{
		"x32": func(params) error { return call(0x40000000|39, 0, 0, 0) },
	}
}
