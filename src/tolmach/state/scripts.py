"""What the state server does in one step each, in its own Lua.

A sliding window is a hash: the number of a bucket (time divided by its width) -> what it counts. A counter
that begins anew is a number that expires, a lease is a member of a sorted set with its end. The server's
clock counts, so that all machines have one. Scripts are sent whole: a restarted server has lost none.
"""

from tolmach.state.base import BUCKETS

__all__ = ["LEASE", "RESTORE", "SETTLE", "TAKE"]

_CLOCK = """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
"""

_COUNTERS = f"""{_CLOCK}
local B = {BUCKETS}
local function milliseconds(seconds) return math.max(1, math.ceil(seconds * 1000)) end

local function buckets(key, seconds)
  local first = math.floor(now * B / seconds) - B
  local found, sum = {{}}, 0
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local bucket, count = tonumber(all[i]), tonumber(all[i + 1])
    if bucket < first then
      redis.call('HDEL', key, all[i])
    else
      found[#found + 1] = {{bucket, count}}
      sum = sum + count
    end
  end
  return found, sum
end

local function used(key, seconds, fixed)
  if fixed then return tonumber(redis.call('GET', key) or '0') end
  local _, sum = buckets(key, seconds)
  return sum
end

local function wait(key, seconds, fixed, too_much)
  if fixed then
    local left = redis.call('PTTL', key)
    return left > 0 and left / 1000 or seconds
  end
  local found = buckets(key, seconds)
  table.sort(found, function(a, b) return a[1] < b[1] end)
  for _, each in ipairs(found) do
    too_much = too_much - each[2]
    if too_much <= 0 then return (each[1] + B + 1) * seconds / B - now end
  end
  return seconds
end

local function add(key, seconds, fixed, amount)
  if amount == 0 then return end
  if fixed then
    local sum = redis.call('INCRBY', key, amount)
    if sum < 0 then redis.call('INCRBY', key, -sum) end
    if redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, milliseconds(seconds)) end
  else
    redis.call('HINCRBY', key, string.format('%d', math.floor(now * B / seconds)), amount)
    redis.call('PEXPIRE', key, milliseconds(seconds * 2))
  end
end
"""

TAKE = f"""{_COUNTERS}
local sums, refused, after = {{}}, -1, 0
for i, key in ipairs(KEYS) do
  local amount, limit = tonumber(ARGV[4*i-3]), tonumber(ARGV[4*i-2])
  local seconds, fixed = tonumber(ARGV[4*i-1]), ARGV[4*i] == '1'
  sums[i] = used(key, seconds, fixed)
  if refused < 0 and sums[i] + amount > limit then
    refused = i - 1
    after = wait(key, seconds, fixed, sums[i] + amount - limit)
  end
end
if refused < 0 then
  for i, key in ipairs(KEYS) do
    add(key, tonumber(ARGV[4*i-1]), ARGV[4*i] == '1', tonumber(ARGV[4*i-3]))
    sums[i] = sums[i] + tonumber(ARGV[4*i-3])
  end
end
for i, sum in ipairs(sums) do sums[i] = string.format('%d', sum) end
return {{refused, string.format('%.6f', after), string.format('%.17g', now), unpack(sums)}}
"""
"""KEYS: counters. ARGV: amount, limit, seconds and fixed (1 or 0) of each. Gives the place of the first that did not
fit or -1, seconds until it would, the time, and what each holds."""

SETTLE = f"""{_COUNTERS}
local at = tonumber(ARGV[1])
for i, key in ipairs(KEYS) do
  local more, seconds, fixed = tonumber(ARGV[3*i-1]), tonumber(ARGV[3*i]), ARGV[3*i+1] == '1'
  if more > 0 then
    add(key, seconds, fixed, more)
  elseif fixed then
    if redis.call('EXISTS', key) == 1 then add(key, seconds, fixed, more) end
  else
    local bucket = string.format('%d', math.floor(at * B / seconds))
    local left = tonumber(redis.call('HGET', key, bucket) or '0') + more
    if left > 0 then redis.call('HSET', key, bucket, left) else redis.call('HDEL', key, bucket) end
  end
end
"""
"""KEYS: counters. ARGV: when they were taken, then the difference, seconds and fixed of each."""

RESTORE = f"""{_COUNTERS}
local least, more, seconds, fixed = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local missing = math.max(0, least - used(KEYS[1], seconds, fixed))
add(KEYS[1], seconds, fixed, missing + more)
return used(KEYS[1], seconds, fixed)
"""
"""KEYS: a counter. ARGV: what it held at least, what was taken besides while the server was away, seconds, fixed."""

LEASE = f"""{_CLOCK}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
redis.call('PEXPIRE', KEYS[1], math.max(1, math.ceil((last[2] - now) * 1000)))
return 1
"""
"""KEYS: the key. ARGV: the holder, how many there may be, seconds. Gives 1 when it is one of them."""
