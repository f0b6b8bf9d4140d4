package devices

// Sensors are what an accelerator's driver reports of it. NaN: the driver doesn't report it.
type Sensors struct {
	Driver      string
	Utilization float64 // 0 to 1
	Watts       float64
	Celsius     float64
}
