-- One row per player and day (UTC) with anything done: all later models add up days.
select
    user_id,
    day,
    min(occurred_at) as first_event_at,
    max(occurred_at) as last_event_at,
    {{ count_where("name = 'app_open'") }} as sessions,
    {{ count_where("name = 'game_end'") }} as games,
    {{ count_where("name = 'game_end' and label = 'win'") }} as games_won,
    {{ count_where("name = 'ad_view'") }} as ad_views,
    {{ count_where("name = 'tournament_join'") }} as tournaments,
    {{ count_where("name = 'invite'") }} as invites,
    {{ count_where("name = 'purchase'") }} as purchases,
    sum(case when name = 'purchase' then coalesce(value, 0) else 0 end) as revenue,
    {{ count_where("local_hour < 6") }} as night_events,
    {{ count_where("local_hour >= 6 and local_hour < 12") }} as morning_events,
    {{ count_where("local_hour >= 12 and local_hour < 18") }} as afternoon_events,
    {{ count_where("local_hour >= 18") }} as evening_events,
    max(level) as level,
    max(tier) as tier,
    max_by(country, occurred_at) as country,
    max_by(device_os, occurred_at) as device_os
from {{ ref('stg_events') }}
group by user_id, day
