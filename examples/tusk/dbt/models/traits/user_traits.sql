-- The computed traits of every player. `window_start` opens the last 30 days.
with moment as (

    select
        {{ as_of() }} as as_of,
        {{ dbt.dateadd('day', -30, end_day()) }} as window_start

),

totals as (

    select
        user_id,
        min(first_event_at) as first_seen_at,
        max(last_event_at) as last_seen_at,
        sum(revenue) as ltv,
        sum(tournaments) as tournaments,
        sum(invites) as invites,
        max(level) as level,
        max(tier) as tier,
        sum(night_events) as night_events,
        sum(morning_events) as morning_events,
        sum(afternoon_events) as afternoon_events,
        sum(evening_events) as evening_events,
        max_by(country, day) as country,
        max_by(device_os, day) as device_os
    from {{ ref('user_days') }}
    group by user_id

),

recent as (

    select
        days.user_id,
        sum(days.sessions) as sessions,
        sum(days.games) as games,
        sum(days.ad_views) as ad_views,
        sum(days.revenue) as revenue,
        count(*) as active_days
    from {{ ref('user_days') }} as days
    cross join moment
    where days.day >= moment.window_start
    group by days.user_id

)

select
    totals.user_id,
    totals.ltv > 0 as is_payer,
    totals.tournaments > 0 as joins_tournaments,
    totals.invites > 0 as has_invited,
    round(cast(totals.ltv as double), 2) as ltv,
    round(cast(coalesce(recent.revenue, 0) as double), 2) as revenue_30d,
    cast(coalesce(recent.sessions, 0) as integer) as sessions_30d,
    cast(coalesce(recent.games, 0) as integer) as games_30d,
    cast(coalesce(recent.active_days, 0) as integer) as active_days_30d,
    cast(coalesce(recent.ad_views, 0) as integer) as ad_views_30d,
    coalesce(totals.level, 1) as current_level,
    cast({{ dbt.datediff('totals.last_seen_at', 'moment.as_of', 'day') }} as integer)
        as days_since_last_seen,
    cast({{ dbt.datediff('totals.first_seen_at', 'moment.as_of', 'day') }} as integer)
        as days_since_first_seen,
    coalesce(totals.country, 'unknown') as country,
    case when totals.device_os in ('android', 'ios') then totals.device_os else 'other' end
        as device_os,
    case
        when totals.ltv >= 100 then 'whale'
        when totals.ltv >= 20 then 'dolphin'
        when totals.ltv > 0 then 'minnow'
        else 'none'
    end as payer_tier,
    case greatest(
        totals.night_events, totals.morning_events, totals.afternoon_events, totals.evening_events
    )
        when totals.evening_events then 'evening'
        when totals.afternoon_events then 'afternoon'
        when totals.morning_events then 'morning'
        else 'night'
    end as favourite_hour_band,
    case
        when recent.user_id is null then 'lapsed'
        when {{ dbt.datediff('totals.first_seen_at', 'moment.as_of', 'day') }} < 7 then 'new'
        when {{ dbt.datediff('totals.last_seen_at', 'moment.as_of', 'day') }} < 7 then 'active'
        else 'slipping'
    end as lifecycle_stage
from totals
cross join moment
left join recent
    on totals.user_id = recent.user_id
