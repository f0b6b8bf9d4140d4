package settings

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parse checks text as a value of the setting and returns it as the Go type of its kind: string, bool, int, float64,
// time.Duration, int64 (bytes), []string or RateLimit.
func (s *Setting) parse(text string) (any, error) {
	v, err := s.parseKind(text)
	if err != nil {
		return nil, err
	}
	if err := s.checkRange(v); err != nil {
		return nil, err
	}
	return v, s.checkContent(v)
}

func (s *Setting) parseKind(text string) (any, error) {
	switch s.Kind {
	case Bool:
		return parseBool(text)
	case Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, errors.New("must be a whole number")
		}
		return n, nil
	case Float:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, errors.New("must be a number")
		}
		return f, nil
	case Duration:
		return parseDuration(text)
	case Bytes:
		return parseBytes(text)
	case List:
		return parseList(text), nil
	case Rate:
		return parseRate(text)
	case Enum:
		if !slices.Contains(s.Choices, text) {
			return nil, fmt.Errorf("must be one of %s", strings.Join(s.Choices, ", "))
		}
	}
	return text, nil
}

// checkRange compares numbers, durations and bytes with Min and Max.
func (s *Setting) checkRange(v any) error {
	n, ok := numericValue(v)
	if !ok {
		return nil
	}
	if s.Min != "" && n < s.bound(s.Min) || s.Max != "" && n > s.bound(s.Max) {
		return fmt.Errorf("must be %s", s.Range())
	}
	return nil
}

func (s *Setting) checkContent(v any) error {
	switch v := v.(type) {
	case string:
		if s.check == nil || v == "" && s.Default == "" {
			return nil
		}
		return s.check(v)
	case []string:
		if s.Items > 0 && len(v) > s.Items {
			return fmt.Errorf("has %d elements, at most %d are possible", len(v), s.Items)
		}
		for _, element := range v {
			if s.check == nil {
				break
			}
			if err := s.check(element); err != nil {
				return fmt.Errorf("%q: %w", element, err)
			}
		}
		if s.checkList != nil {
			return s.checkList(v)
		}
	}
	return nil
}

// bound parses Min or Max, which the tests have checked.
func (s *Setting) bound(text string) float64 {
	v, err := s.parseKind(text)
	if err != nil {
		panic(fmt.Sprintf("settings: bound %q of %s: %v", text, s.Env, err))
	}
	n, _ := numericValue(v)
	return n
}

func numericValue(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	case float64:
		return v, true
	case time.Duration:
		return float64(v), true
	}
	return 0, false
}

func parseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0":
		return false, nil
	}
	return false, errors.New("must be true or false")
}

func parseDuration(text string) (time.Duration, error) {
	if text == "0" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		if _, err := strconv.ParseFloat(text, 64); err == nil {
			return 0, fmt.Errorf("needs a unit, for example %ss", text)
		}
		return 0, errors.New("must be a duration such as 300ms, 10s or 5m")
	}
	if d < 0 {
		return 0, errors.New("must not be negative")
	}
	return d, nil
}

var byteUnits = []struct {
	suffix string
	factor float64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}}

func parseBytes(text string) (int64, error) {
	number, factor := text, 1.0
	for _, u := range byteUnits {
		if cut, ok := strings.CutSuffix(text, u.suffix); ok {
			number, factor = strings.TrimSpace(cut), u.factor
			break
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f < 0 || f*factor > math.MaxInt64/2 {
		return 0, errors.New("must be a size such as 4096, 512KiB or 8MiB")
	}
	return int64(f * factor), nil
}

// parseList splits at commas; empty elements don't count.
func parseList(text string) []string {
	var list []string
	for element := range strings.SplitSeq(text, ",") {
		if element = strings.TrimSpace(element); element != "" {
			list = append(list, element)
		}
	}
	return list
}

var rateUnits = map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}

// maxRate keeps the interval between two requests representable.
const maxRate = 1_000_000

// ParseRate reads N/second, N/minute, N/hour or N/day; 0 and off mean no limit.
func ParseRate(text string) (RateLimit, error) { return parseRate(text) }

func parseRate(text string) (RateLimit, error) {
	if text == "0" || strings.EqualFold(text, "off") || strings.EqualFold(text, "false") {
		return RateLimit{}, nil
	}
	count, unit, _ := strings.Cut(text, "/")
	n, err := strconv.Atoi(count)
	per, ok := rateUnits[unit]
	if err != nil || !ok {
		return RateLimit{}, errors.New("must be like 5/minute (second, minute, hour, day), or off")
	}
	if n < 0 || n > maxRate {
		return RateLimit{}, fmt.Errorf("must allow 0 to %d requests", maxRate)
	}
	if n == 0 {
		return RateLimit{}, nil
	}
	return RateLimit{Count: n, Per: per}, nil
}
