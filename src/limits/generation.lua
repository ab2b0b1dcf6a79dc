-- Which Redis is this? Names it when it has no name: then it is new, or lost its data. One that may have lost its last
-- writes (a failover, a crash without fsync) still has its name, but is another run of a server than the one that was named,
-- or has a usage stream that is behind what the caller has seen: it gets a new name too.
--   KEYS  1 generation, 2 usage stream
--   ARGV  1 name to give, 2 generation that the caller knows, 3 newest entry of the usage stream that it saw there,
--         4 ms by which a new one is born later: others may take so long to connect again
-- Answers { generation, age in ms (negative before its birth), oldest entry of the usage stream ('' without any), newest one ever }.

local function parse_id(id)
  local ms, number = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(number)
end

local function is_before(id, other)
  local ms, number = parse_id(id)
  local other_ms, other_number = parse_id(other)
  return ms < other_ms or (ms == other_ms and number < other_number)
end

local oldest = ''
local newest = '0-0'
if redis.call('EXISTS', KEYS[2]) == 1 then
  local stream = redis.call('XINFO', 'STREAM', KEYS[2])
  for i = 1, #stream, 2 do
    if stream[i] == 'last-generated-id' then
      newest = stream[i + 1]
    elseif stream[i] == 'first-entry' and stream[i + 1] then
      oldest = stream[i + 1][1]
    end
  end
end

-- Changes with each start, and is another one after a failover. Not every user may ask for it.
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or '-'

local now = now_micros()
local generation = redis.call('GET', KEYS[1])
if generation and generation == ARGV[2] and is_before(newest, ARGV[3]) then
  generation = false
end
if generation and string.match(generation, '%S+$') ~= run then
  generation = false
end
if not generation then
  generation = ARGV[1] .. ' ' .. int(now + tonumber(ARGV[4]) * 1000) .. ' ' .. run
  redis.call('SET', KEYS[1], generation)
end
local born = tonumber(string.match(generation, ' (%d+) '))
return { generation, int(math.floor((now - born) / 1000)), oldest, newest }
