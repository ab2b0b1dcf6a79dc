-- Says that a replica lives, or leaves, and answers how many live.
--   KEYS  1 replicas, by the end of their leases
--   ARGV  1 id, 2 lease in ms; 0 leaves

local now_ms = math.floor(now_micros() / 1000)
local lease_ms = tonumber(ARGV[2])
if lease_ms > 0 then
  redis.call('ZADD', KEYS[1], int(now_ms + lease_ms), ARGV[1])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', int(now_ms))
redis.call('PEXPIRE', KEYS[1], int(math.max(1, lease_ms)))
return redis.call('ZCARD', KEYS[1])
