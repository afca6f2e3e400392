-- Counts for all workers at once. KEYS[1] is a prefix, ARGV[1] a JSON list of what is asked; the answers are in its order.
-- The clock is this server's, so that all workers have the same one.
local now = redis.call('TIME')
local at = now[1] + now[2] / 1e6
local second = tonumber(now[1])
local WINDOW, LEASE = 60, tonumber(ARGV[2])
local function key(kind, name) return KEYS[1] .. kind .. ':' .. name end

-- Requests of a minute, by the second: their sum, and the first and the last second that has one. What is later than
-- the window reaches was written before the clock was set back: it would never end.
local function window(name)
  local found, sum, oldest, newest = redis.call('HGETALL', key('rate', name)), 0, nil, nil
  for i = 1, #found, 2 do
    local s, n = tonumber(found[i]), tonumber(found[i + 1])
    if s < second - WINDOW or s > second + WINDOW then
      redis.call('HDEL', key('rate', name), found[i])
    else
      sum = sum + n
      if oldest == nil or s < oldest then oldest = s end
      if newest == nil or s > newest then newest = s end
    end
  end
  return {sum, oldest or second, newest or second}
end

local function count(rates)
  local allowed, found = true, {}
  for i, rate in ipairs(rates) do
    found[i] = window(rate[1])
    if found[i][1] >= rate[2] then allowed = false end
  end
  local answers = {}
  for i, rate in ipairs(rates) do
    local sum, oldest, newest = found[i][1], found[i][2], found[i][3]
    if allowed then
      redis.call('HINCRBY', key('rate', rate[1]), second, 1)
      redis.call('EXPIRE', key('rate', rate[1]), WINDOW + 2)
      sum, newest = sum + 1, math.max(newest, second)
    end
    answers[i] = {allowed, sum, oldest + WINDOW + 1 - at, newest + WINDOW + 1 - at}
  end
  return answers
end

-- Takes the leases that have ended out of a set; one that ends later than any lease does is of another clock.
local function expire(set)
  redis.call('ZREMRANGEBYSCORE', set, '-inf', at)
  redis.call('ZREMRANGEBYSCORE', set, at + 3 * LEASE, '+inf')
end

local function hold(set, member)
  redis.call('ZADD', set, at + LEASE, member)
  redis.call('EXPIRE', set, math.ceil(4 * LEASE))
end

local function enter(place, endpoint, most, budget)
  local used = 0
  if budget ~= cjson.null then
    local name, month, limit, known, reserved = budget[1], budget[2], budget[3], budget[4], budget[5]
    local total = key('used', name .. ':' .. month)
    used = tonumber(redis.call('GET', total) or 0)
    if known > used then
      used = known
      redis.call('SET', total, string.format('%d', used), 'EX', 40 * 86400)
    end
    local ahead, reservations = 0, key('reserved', name)
    expire(reservations)
    for _, member in ipairs(redis.call('ZRANGE', reservations, 0, -1)) do
      ahead = ahead + tonumber(string.match(member, '^(%d+):'))
    end
    if used + ahead >= limit then return {'budget', used} end
  end
  local set = key('places', endpoint)
  expire(set)
  if redis.call('ZCARD', set) >= most then return {'busy', used} end
  hold(set, place)
  if budget ~= cjson.null then
    hold(key('reserved', budget[1]), string.format('%d:%s', budget[5], place))
  end
  return {'', used}
end

local function leave(place, endpoint, budget, tokens)
  redis.call('ZREM', key('places', endpoint), place)
  if budget ~= cjson.null then
    redis.call('ZREM', key('reserved', budget[1]), string.format('%d:%s', budget[5], place))
    if tokens > 0 then
      local total = key('used', budget[1] .. ':' .. budget[2])
      redis.call('INCRBY', total, string.format('%d', tokens))
      redis.call('EXPIRE', total, 40 * 86400)
    end
  end
  return {}
end

-- A worker's places go on; one that was lost with this server's memory is taken again.
local function renew(place, endpoint, budget)
  hold(key('places', endpoint), place)
  if budget ~= cjson.null then
    hold(key('reserved', budget[1]), string.format('%d:%s', budget[5], place))
  end
  return {}
end

local answers = {}
for _, asked in ipairs(cjson.decode(ARGV[1])) do
  local what, answer = asked[1], nil
  if what == 'count' then answer = count(asked[2])
  elseif what == 'enter' then answer = enter(asked[2], asked[3], asked[4], asked[5])
  elseif what == 'leave' then answer = leave(asked[2], asked[3], asked[4], asked[5])
  elseif what == 'renew' then answer = renew(asked[2], asked[3], asked[4])
  end
  table.insert(answers, answer)
end
return cjson.encode(answers)
