-- Takes requests or tokens from a bucket, or gives some back (GCRA, by this server's clock).
-- KEYS[1] holds how many nanoseconds the bucket needed to be full, and at which microsecond. No key: it is full.
-- ARGV: nanoseconds of one, nanoseconds of the whole burst, how many to take (below 0: to give back), and 1 to take them
-- even if there are fewer, which leaves an empty bucket.
-- Returns 1 or 0 for passed or refused, and how many nanoseconds the bucket needs now. All numbers are whole and under 2^53.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local needs, at = 0, now
local kept = redis.call('GET', KEYS[1])
if kept then
  local needed, when = string.match(kept, '^(%d+) (%d+)$')
  if needed then
    at = tonumber(when)
    needs = math.max(needed - math.max(now - at, 0) * 1000, 0)
  end
end

local after = math.max(needs + ARGV[1] * ARGV[3], 0)
local burst = tonumber(ARGV[2])
if ARGV[4] == '1' then after = math.min(after, math.max(burst, needs)) end
local passed = after <= burst or ARGV[4] == '1'
if not passed then
  if at <= now then return {0, needs} end -- a refused request costs nothing
  after = needs -- the clock was set back: go on from here, or nothing would fill until it is where it was
end
if after == 0 then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], string.format('%.0f %.0f', after, now), 'PX', string.format('%.0f', math.ceil(after / 1000000)))
end
return {passed and 1 or 0, after}
