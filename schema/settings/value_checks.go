package settings

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	modelName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$`)
	domainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")
	deviceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ._:-]{0,62}$`)
	urlPath    = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)+$`)
)

func checkModel(v string) error {
	if !modelName.MatchString(v) {
		return errors.New("must be a name or org/name of letters, digits, dot, dash and underscore")
	}
	if v == "none" || v == "unknown" || v == "other" {
		return errors.New("is a reserved name")
	}
	return nil
}

func checkVersion(v string) error {
	if strings.Contains(v, "/") || checkModel(v) != nil {
		return errors.New("must be a version name of letters, digits, dot, dash and underscore")
	}
	return nil
}

// checkPreload accepts default, model and model@version.
func checkPreload(v string) error {
	model, version, found := strings.Cut(v, "@")
	if found {
		if err := checkVersion(version); err != nil {
			return err
		}
	}
	return checkModel(model)
}

func checkDomain(v string) error {
	if !domainName.MatchString(v) {
		return errors.New("must be at most 63 letters, digits, dots, dashes and underscores")
	}
	return nil
}

func checkHeader(v string) error {
	if !headerName.MatchString(v) {
		return errors.New("must be the name of an HTTP header")
	}
	if strings.EqualFold(v, "Authorization") {
		return errors.New("is read anyway, as Authorization: Bearer; name another header")
	}
	return nil
}

func checkPath(v string) error {
	if !urlPath.MatchString(v) {
		return errors.New("must be a path such as /prometheus")
	}
	return nil
}

func checkAddress(v string) error {
	_, port, err := net.SplitHostPort(v)
	if err != nil {
		return errors.New("must be host:port or :port")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("port %q must be 0 to 65535", port)
	}
	return nil
}

func checkNetwork(v string) error {
	if _, err := netip.ParseAddr(v); err == nil {
		return nil
	}
	if _, err := netip.ParsePrefix(v); err == nil {
		return nil
	}
	return errors.New("must be an address or a network such as 10.0.0.0/8")
}

func checkOrigin(v string) error {
	if v == "*" {
		return nil
	}
	u, err := url.Parse(v)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.Path != "" || u.RawQuery != "" {
		return errors.New("must be an origin such as https://example.org, or *")
	}
	return nil
}

func checkCollector(v string) error {
	u, err := url.Parse(v)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return errors.New("must be a URL such as http://localhost:4318, without a user, a query and a fragment")
	}
	return nil
}

// checkStoreURL has errors without the address, which may hold a password.
func checkStoreURL(v string) error {
	u, err := url.Parse(v)
	if err != nil {
		return errors.New("must be a URL such as redis://user:password@host:6379/0; write special characters of the password as %40 and the like")
	}
	query := u.Query()
	number := query.Get("db")
	query.Del("db")
	switch u.Scheme {
	case "redis", "rediss", "valkey", "valkeys":
		if u.Hostname() == "" {
			return errors.New("must name a host, as in redis://host:6379/0")
		}
		if number == "" {
			number = strings.TrimPrefix(u.Path, "/")
		} else if u.Path != "" {
			return errors.New("must name the database once, as in redis://host:6379/0")
		}
	case "unix":
		if u.Host != "" || len(u.Path) < 2 {
			return errors.New("must name a socket, as in unix:///run/redis.sock")
		}
	default:
		return errors.New("must begin with redis://, rediss://, valkey://, valkeys:// or unix://")
	}
	if n, err := strconv.Atoi(number); (number != "" || u.Path == "/") && (err != nil || n < 0) {
		return errors.New("must name the database by its number, as in redis://host:6379/0")
	}
	if len(query) > 0 || u.Fragment != "" {
		return errors.New("must be the address of one server, without options (only ?db= is known)")
	}
	return nil
}

func checkUID(v string) error {
	if _, err := strconv.ParseUint(v, 10, 32); err != nil {
		return errors.New("must be a numeric user id")
	}
	return nil
}

func checkSocket(v string) error {
	if len(v) > 100 { // the kernel's limit is 108 with the temporary name's suffix
		return errors.New("must be at most 100 bytes, a limit of Unix sockets")
	}
	return nil
}

// checkGPUSplit refuses none among shares.
func checkGPUSplit(shares []string) error {
	if len(shares) > 1 && slices.Contains(shares, "none") {
		return errors.New("must be either none or a list of shares")
	}
	return nil
}

func checkDevice(v string) error {
	if !deviceName.MatchString(v) {
		return errors.New("must be auto, cpu, or the name of a backend or device, such as cuda or CUDA0")
	}
	return nil
}

// checkGPUShare accepts none or a share of a model for one GPU.
func checkGPUShare(v string) error {
	if v == "none" {
		return nil
	}
	if f, err := strconv.ParseFloat(v, 32); err != nil || !(f >= 0 && f <= 1e6) {
		return errors.New("must be a share such as 1 or 0.5, or none")
	}
	return nil
}
