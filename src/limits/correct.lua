-- Appends events that no open reservation is settled by, and makes period counters unknown, so that they follow the
-- ledger. With it a process also gives back to a Redis that lost data what it knows of calls that ended.
--   KEYS  1 generation, 2 leases, 3 usage stream, 4... period counters
--   ARGV  1 generation, 2 prefix of the reservations' keys, 3 ms to remember a settlement, 4 ms in which a late
--         settlement of an abandoned call is still expected, 5... for each event: the state in which its call ended
--         ('s', 'a', or '' for an event that ends no call), id of the call, event (JSON), and the id of the entry that it
--         had ('' for a new event): it is not appended again if that was not lost
-- Answers { 'generation' } or { 'corrected', id of stream entry... }.

local function has(entry, event)
  local found = entry ~= '' and redis.call('XRANGE', KEYS[3], entry, entry)[1]
  return found and found[2][2] == event
end

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 'generation' }
end
local now = now_micros()
local reply = { 'corrected' }
for i = 5, #ARGV, 4 do
  local ended, id, event, entry = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if ended ~= '' then
    local key = ARGV[2] .. id
    local state, plan = read_reservation(key)
    -- Open only where the data went back to an earlier moment, or the call was declared by its own process.
    if state == 'o' then
      release_plan(plan, false, now)
      redis.call('ZREM', KEYS[2], id)
    end
    if ended == 's' then
      redis.call('SET', key, 's', 'PX', ARGV[3])
    elseif state == 'o' or state == '' then
      redis.call('SET', key, 'a' .. (plan or '') .. '\n' .. event, 'PX', ARGV[4])
    end
  end
  reply[#reply + 1] = has(entry, event) and entry or redis.call('XADD', KEYS[3], '*', 'event', event)
end
forget(keys_of(4, #KEYS), now)
return reply
