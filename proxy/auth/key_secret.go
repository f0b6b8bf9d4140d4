package auth

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
)

// secretPrefix shows people and secret scanners what a key is for.
const secretPrefix = "tandem_"

// secretDigits is the number of base-62 digits of 32 bytes.
const secretDigits = 43

// NewKey makes a key: its entry for the key file goes to out, the secret once to secretOut. Only its hash can be found
// again.
func NewKey(name string, out, secretOut io.Writer) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("name of the key: %w", err)
	}
	secret, err := newSecret(rand.Reader)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "  - name: %q\n    sha256: %q\n", name, hashHex(secret)); err != nil {
		return fmt.Errorf("write the entry: %w", err)
	}
	_, err = fmt.Fprintf(secretOut, "%s\n\nThis is the key of %s; it is shown only this once. Put the entry under keys: in the key file.\n", secret, name)
	if err != nil {
		return fmt.Errorf("write the secret: %w", err)
	}
	return nil
}

func newSecret(random io.Reader) (string, error) {
	var raw [32]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return "", fmt.Errorf("read random bytes: %w", err)
	}
	digits := new(big.Int).SetBytes(raw[:]).Text(62)
	return secretPrefix + strings.Repeat("0", secretDigits-len(digits)) + digits, nil
}

// HashKey reads a secret, the first line of in, and writes the value of its sha256 field to out.
func HashKey(in io.Reader, out io.Writer) error {
	line, err := bufio.NewReader(io.LimitReader(in, MaxSecretBytes+2)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the secret: %w", err)
	}
	secret := strings.TrimRight(line, "\r\n")
	switch {
	case secret == "":
		return errors.New("no secret on standard input")
	case len(secret) > MaxSecretBytes:
		return fmt.Errorf("the secret is longer than %d bytes", MaxSecretBytes)
	case strings.Trim(secret, " \t") != secret:
		return errors.New("the secret begins or ends with a space, which clients can't send")
	}
	if _, err := fmt.Fprintln(out, hashHex(secret)); err != nil {
		return fmt.Errorf("write the hash: %w", err)
	}
	return nil
}

func hashHex(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
