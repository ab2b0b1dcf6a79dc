-- Which open reservations have a lease that ran out? Forgets the leases of those that are not open any more.
--   KEYS  1 leases
--   ARGV  1 prefix of the reservations' keys, 2 most of them at once
-- Answers { looked at, then for each that is due: id, plan, event }; see abandon.lua.

local now = now_micros()
-- Not in the millisecond of its end: until that is over, Redis keeps the claim of the call, which must be free then.
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. int(math.floor(now / 1000)), 'LIMIT', 0, ARGV[2])
local reply = { #ids }
for _, id in ipairs(ids) do
  local state, plan, event = read_reservation(ARGV[1] .. id)
  if state == 'o' then
    reply[#reply + 1] = id
    reply[#reply + 1] = plan
    reply[#reply + 1] = event
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return reply
