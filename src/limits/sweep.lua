-- Records the reservations of a shard whose lease ran out, as abandoned; their limits stay at the reserved amount.
--   KEYS  1 leases, 2 usage stream
--   ARGV  1 prefix of the reservations' keys, 2 most of them at once, 3 ms in which a late settlement is still expected
-- Answers { looked at, recorded }.

local now = now_micros()
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', int(math.floor(now / 1000)), 'LIMIT', 0, ARGV[2])
local recorded = 0
for _, id in ipairs(ids) do
  local key = ARGV[1] .. id
  local held = redis.call('GET', key)
  if held and string.sub(held, 1, 1) == 'o' then
    local plan, event = string.match(held, '^o([^\n]*)\n(.*)$')
    redis.call('XADD', KEYS[2], '*', 'event', event)
    redis.call('SET', key, 'a' .. plan, 'PX', ARGV[3])
    recorded = recorded + 1
  end
  redis.call('ZREM', KEYS[1], id)
end
return { #ids, recorded }
