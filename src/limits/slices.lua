-- What a replica does with its slices, in one step: calls that were admitted from them are held as reservations, units are
-- given back to limits, and units are taken from limits.
--   KEYS  1 generation, 2 leases, 3 ends of what replicas hold
--   ARGV  1 generation, 2 prefix of the reservations' keys, 3 id of the replica's holding, 4 ms until its end, 5 percent of
--         what is left of a limit that all replicas together may hold, 6 prefix of the keys of holdings, which have units by
--         limit, 7 '1' when the holding begins, else '', 8 number of limits, 9... for each limit five: the limit as a plan
--         has it, units that the calls take (of a limit once), units to give back, units wanted, and the least of them that is worth anything;
--         then for each call three: id, no two alike, lease in ms, and its reservation as it is kept while it is open
-- Answers { 'generation' }, { 'lost' } when the holding is gone because its replica was silent beyond its end: calls are
-- held all the same and nothing else was done, or { 'moved', given, remaining, reset, ... } with three for each limit of
-- which something is wanted; remaining is '' where the period is unknown. May be repeated: calls that are known take nothing.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 'generation' }
end

local now = now_micros()
local count = tonumber(ARGV[8])
local repeated = {}

-- All reservations in one command, and all leases in another: what a command costs beside its work is most of it.
local reservations = {}
local leases = {}
for at = 9 + 5 * count, #ARGV, 3 do
  reservations[#reservations + 1] = ARGV[2] .. ARGV[at]
  reservations[#reservations + 1] = ARGV[at + 2]
  leases[#leases + 1] = int(math.floor(now / 1000) + tonumber(ARGV[at + 1]))
  leases[#leases + 1] = ARGV[at]
end
if #reservations > 0 and redis.call('MSETNX', unpack(reservations)) == 0 then
  -- Some are known.
  local news = {}
  for i = 1, #reservations, 2 do
    if redis.call('SET', reservations[i], reservations[i + 1], 'NX') then
      news[#news + 1] = leases[i]
      news[#news + 1] = leases[i + 1]
    else
      local limits, amounts = read_plan(string.match(reservations[i + 1], '^o([^\n]*)'))
      for j, limit in ipairs(limits) do
        repeated[limit.text] = (repeated[limit.text] or 0) + amounts[j]
      end
    end
  end
  leases = news
end
if #leases > 0 then
  redis.call('ZADD', KEYS[2], unpack(leases))
end
local is_lost = ARGV[7] == '' and not redis.call('ZSCORE', KEYS[3], ARGV[3])
if not is_lost then
  redis.call('ZADD', KEYS[3], int(math.floor(now / 1000) + tonumber(ARGV[4])), ARGV[3])
end
local holders = redis.call('ZCARD', KEYS[3])
local holding = ARGV[6] .. ARGV[3]

local reply = { is_lost and 'lost' or 'moved' }
for at = 9, 8 + 5 * count, 5 do
  local text = ARGV[at]
  local limit = read_limit(text)
  local spent = tonumber(ARGV[at + 1])
  if spent > 0 then
    spent = spent - (repeated[text] or 0)
  end
  local back = tonumber(ARGV[at + 2])
  local wanted = tonumber(ARGV[at + 3])
  local held = tonumber(redis.call('HGET', holding, text) or '0')

  -- Held no more: what was spent is taken from the limit, whatever is left.
  local missing = math.max(0, spent - held)
  back = math.min(back, held - (spent - missing))
  local after = held - (spent - missing) - back
  if missing > 0 then
    put_slot(limit, taken_from(limit, slot_of(limit, now), missing))
  end
  if spent > missing and limit.kind == 'b' then
    put_slot(limit, used_up(limit, slot_of(limit, now), spent - missing))
  end
  if back > 0 then
    put_slot(limit, returned(limit, slot_of(limit, now), back))
  end

  if wanted > 0 and not is_lost then
    local slot = slot_of(limit, now)
    local left = units_left(limit, slot)
    local most = left and math.floor((left + after) * tonumber(ARGV[5]) / 100 / holders) - after or 0
    local given = math.min(wanted, most)
    if given < tonumber(ARGV[at + 4]) then
      given = 0
    else
      put_slot(limit, lent(limit, slot, given))
      after = after + given
    end
    reply[#reply + 1] = int(given)
    if left then
      push_state(reply, limit, slot_of(limit, now), now)
    else
      reply[#reply + 1] = ''
      reply[#reply + 1] = ''
    end
  end

  if after ~= held then
    if after > 0 then
      redis.call('HSET', holding, text, int(after))
    else
      redis.call('HDEL', holding, text)
    end
  end
end
store_slots(now)
return reply
