package echo

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ErrCut is what Respond returns where the switch cut ends an answer.
var ErrCut = errors.New("answer cut by a switch")

// maxSwitch bounds every number among the switches.
const maxSwitch = 1 << 20

// Switches are how an answer is given. Each has its name in the provider's
// options and in directives; the zero value changes nothing.
type Switches struct {
	Latency time.Duration // latency: wait before the first byte
	Delay   time.Duration // delay: wait before every chunk of text but the first
	Chunks  int           // chunks: pieces of text in a stream; default one a word
	Tokens  int           // tokens: answer with that many words instead of the message
	Fail    int           // fail: answer with this HTTP status (400 to 599)
	Cut     int           // cut: break off after so many pieces of a stream, or before a plain answer
	Hang    int           // hang: like cut, but wait until the caller gives up
	Tool    bool          // tool: answer with a call of the first tool of the request (chat only)
}

// switchesOf reads the provider's options; names that are no switch are others'.
func switchesOf(options map[string]string) (s Switches, err error) {
	for name, value := range options {
		if name == "directives" {
			continue
		}
		if known, err := s.set(name, value); known && err != nil {
			return s, fmt.Errorf("option %s: %w", name, err)
		}
	}
	return s, nil
}

// directive takes the first [[echo ...]] out of text and applies it.
func (s *Switches) directive(text string) (string, error) {
	before, after, ok := strings.Cut(text, "[[echo ")
	if !ok {
		return text, nil
	}
	body, after, ok := strings.Cut(after, "]]")
	if !ok {
		return text, nil
	}
	for field := range strings.FieldsSeq(body) {
		name, value, _ := strings.Cut(field, "=")
		known, err := s.set(name, value)
		if !known {
			err = errors.New("no such switch")
		}
		if err != nil {
			return "", fmt.Errorf("directive %s: %w", name, err)
		}
	}
	return strings.TrimSpace(before + after), nil
}

func (s *Switches) set(name, value string) (known bool, err error) {
	switch name {
	case "latency":
		s.Latency, err = duration(value)
	case "delay":
		s.Delay, err = duration(value)
	case "chunks":
		s.Chunks, err = number(value)
	case "tokens":
		s.Tokens, err = number(value)
	case "cut":
		s.Cut, err = number(value)
	case "hang":
		s.Hang, err = number(value)
	case "fail":
		if s.Fail, err = number(value); err == nil && s.Fail != 0 && (s.Fail < 400 || s.Fail > 599) {
			err = errors.New("want a status of 400 to 599")
		}
	case "tool":
		s.Tool = value == "1" || value == "true"
	default:
		return false, nil
	}
	return true, err
}

func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > time.Hour {
		return 0, errors.New("want a duration of at most 1h")
	}
	return d, nil
}

func number(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > maxSwitch {
		return 0, errors.New("want a number of at most 1048576")
	}
	return n, nil
}
